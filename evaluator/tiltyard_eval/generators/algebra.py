"""Families of algebra: unknowns, brackets, functions. Every answer is an integer, or a polynomial in one fixed form."""

from __future__ import annotations

from collections.abc import Sequence

from tiltyard_eval.generators.core import Draw, Rng, family

# Largest coefficient and largest solution, by level.
_RANGES = {1: (5, 9), 2: (9, 9), 3: (9, 12), 4: (12, 20), 5: (20, 40)}


def polynomial(coefficients: Sequence[int], letter: str = "x") -> str:
    """Coefficients from the highest power down as text, `x^2 - 3x + 2`; zeros and the factor 1 are left out."""
    degree = len(coefficients) - 1
    text = ""
    for power, value in zip(range(degree, -1, -1), coefficients, strict=True):
        if value == 0:
            continue
        sign = ("-" if value < 0 else "") if not text else (" - " if value < 0 else " + ")
        size = "" if abs(value) == 1 and power else str(abs(value))
        text += f"{sign}{size}{letter if power else ''}{f'^{power}' if power > 1 else ''}"
    return text or "0"


def _not_zero(rng: Rng, high: int) -> int:
    return rng.between(1, high) * (1 if rng.chance(0.5) else -1)


@family(
    "linear_equation",
    title="Linear equations",
    group="algebra",
    extended=True,
    phrasings=(
        "Solve for {letter} and write only the number: {left} = {right}",
        "{left} = {right}. What is {letter}?",
        "Find the number {letter} for which {left} = {right}.",
        "Which value of {letter} makes {left} = {right} true?",
    ),
)
def linear_equation(rng: Rng, level: int) -> Draw:
    """One unknown, on the left side; from level 3 on both sides. The solution may be negative from level 2."""
    high, top = _RANGES[level]
    letter = rng.pick("xyzabn")
    solution = rng.between(1, top) if level == 1 else _not_zero(rng, top)
    a, b = rng.between(2, high), rng.between(1, 2 * high) if level < 3 else _not_zero(rng, 2 * high)
    right = [a * solution + b]
    if level >= 3:
        c = rng.between(1, a - 1)
        right = [c, (a - c) * solution + b]
    return {"letter": letter, "left": polynomial((a, b), letter), "right": polynomial(right, letter)}, str(solution)


@family(
    "substitute",
    title="Substituting numbers",
    group="algebra",
    extended=True,
    phrasings=(
        "What is {expression} for x = {x}?",
        "Let x = {x}. Evaluate {expression}.",
        "x is {x}. Work out {expression}.",
        "Put {x} for x in {expression} and give the value.",
    ),
)
def substitute(rng: Rng, level: int) -> Draw:
    """The value of a polynomial: linear, quadratic from level 2, cubic at level 5; x negative from level 3."""
    degree = (1, 2, 2, 2, 3)[level - 1]
    high = (5, 5, 6, 9, 5)[level - 1]
    x = rng.between(2, 5 + level) if level < 3 else _not_zero(rng, 3 + level)
    coefficients = [rng.between(1, high)]
    coefficients += [rng.between(0, high) if level < 3 else rng.between(-high, high) for _ in range(degree)]
    value = 0
    for coefficient in coefficients:
        value = value * x + coefficient
    return {"expression": polynomial(coefficients), "x": x}, str(value)


@family(
    "two_unknowns",
    title="Two equations",
    group="algebra",
    extended=True,
    phrasings=(
        "{first} and {second}. What is {letter}?",
        "Solve the two equations {first} and {second} for {letter}, and write only the number.",
        "Two numbers x and y satisfy {first} as well as {second}. Give {letter}.",
        "If {first} and {second}, find {letter}.",
    ),
)
def two_unknowns(rng: Rng, level: int) -> Draw:
    """Sum and difference at level 1, then two linear equations with one solution."""
    high, top = (1, 2, 3, 5, 9)[level - 1], (9, 9, 12, 12, 20)[level - 1]
    x, y = (rng.between(1, top) if level < 4 else _not_zero(rng, top) for _ in range(2))
    rows = [(1, 1), (1, -1)]
    while level > 1:
        rows = [(rng.between(1, high), _not_zero(rng, high)) for _ in range(2)]
        if rows[0][0] * rows[1][1] != rows[0][1] * rows[1][0]:
            break
    first, second = (f"{_two_terms(a, b)} = {a * x + b * y}" for a, b in rows)
    letter = rng.pick("xy")
    return {"first": first, "second": second, "letter": letter}, str(x if letter == "x" else y)


def _two_terms(a: int, b: int) -> str:
    return f"{polynomial((a, 0), 'x')} {'-' if b < 0 else '+'} {polynomial((abs(b), 0), 'y')}"


@family(
    "larger_root",
    title="Quadratic equations",
    group="algebra",
    extended=True,
    phrasings=(
        "Which is the {which} solution of {expression} = 0?",
        "{expression} = 0 has two solutions. Give the {which} one.",
        "Solve {expression} = 0 and write down the {which} root, only the number.",
        "Two numbers make {expression} zero. Name the {which} of them.",
    ),
)
def larger_root(rng: Rng, level: int) -> Draw:
    """A quadratic with two different integer roots, of which the larger or the smaller is asked for."""
    top = (9, 9, 9, 12, 15)[level - 1]
    low = 1 if level == 1 else -top
    first = rng.between(low, top)
    second = rng.between(low, top - 1)
    second += second >= first  # two different roots
    scale = 1 if level < 5 else rng.between(2, 4)
    which = rng.pick(("larger", "smaller"))
    expression = polynomial((scale, -scale * (first + second), scale * first * second))
    return {"expression": expression, "which": which}, str((max if which == "larger" else min)(first, second))


@family(
    "expand_brackets",
    title="Expanding brackets",
    group="algebra",
    extended=True,
    phrasings=(
        # No product drawn here begins with 5x^2, so the example is never the answer.
        "Expand {product}. Write it like 5x^2 - x + 2.",
        "Multiply out, and write the result like 5x^2 - x + 2: {product}",
        "Write {product} without brackets, highest power of x first, in a form like 5x^2 - x + 2.",
        "What is {product} as a sum of powers of x, in falling order, written like 5x^2 - x + 2?",
    ),
)
def expand_brackets(rng: Rng, level: int) -> Draw:
    """A number times a bracket at level 1, two brackets, and three at level 5. Answers look like `x^2 - 3x + 2`."""
    if level == 1:
        a, b, c = rng.between(2, 9), rng.between(1, 5), _not_zero(rng, 9)
        return {"product": f"{a}({polynomial((b, c))})"}, polynomial((a * b, a * c))
    lead, high = (1, 1, 3, 1)[level - 2], (5, 9, 9, 4)[level - 2]
    factors = [(rng.between(1, lead), _not_zero(rng, high)) for _ in range(3 if level == 5 else 2)]
    result = [1]
    for a, b in factors:
        result = [a * high_part + b * low_part for high_part, low_part in zip([*result, 0], [0, *result], strict=True)]
    return {"product": "".join(f"({polynomial(factor)})" for factor in factors)}, polynomial(result)


@family(
    "compose_functions",
    title="Functions in functions",
    group="algebra",
    extended=True,
    phrasings=(
        "f(x) = {f} and g(x) = {g}. What is {call}?",
        "Let f(x) = {f} and g(x) = {g}. Work out {call}.",
        "Given f(x) = {f}, g(x) = {g}, compute {call}.",
        "Two rules: f(x) = {f}; g(x) = {g}. Find the value of {call}.",
    ),
)
def compose_functions(rng: Rng, level: int) -> Draw:
    """Two functions, applied to each other once to three times; from level 4 one of them is quadratic."""
    high = (3, 5, 6, 4, 4)[level - 1]
    f = [rng.between(2, high), rng.between(-high, high)]
    g = [rng.between(1, high), rng.between(-high, high)]
    if level >= 4:
        g = [1, rng.between(-2, 2), rng.between(-high, high)]
    names = [rng.pick("fg") for _ in range((1, 2, 2, 2, 3)[level - 1])]
    if level > 1 and len(set(names)) == 1:
        names[0] = "g" if names[0] == "f" else "f"
    x = value = rng.between(0, 4) if level < 3 else rng.between(-3, 4)
    for name in reversed(names):
        total = 0
        for coefficient in f if name == "f" else g:
            total = total * value + coefficient
        value = total
    call = "(".join(names) + f"({x}" + ")" * len(names)
    return {"f": polynomial(f), "g": polynomial(g), "call": call}, str(value)
