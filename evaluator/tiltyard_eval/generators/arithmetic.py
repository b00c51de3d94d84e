"""Families about numbers: sums, products, comparisons, sequences."""

from __future__ import annotations

from tiltyard_eval.generators.core import Draw, Rng, family

# Largest first and second operand, by level.
_SUM_RANGES = {1: (9, 9), 2: (40, 9), 3: (99, 99), 4: (499, 99), 5: (999, 999)}
_PRODUCT_RANGES = {1: (5, 5), 2: (9, 9), 3: (12, 9), 4: (40, 9), 5: (99, 19)}
_SINGLE_MAXIMUM = {1: 20, 2: 50, 3: 99, 4: 499, 5: 9999}


@family(
    "addition",
    title="Addition",
    group="arithmetic",
    phrasings=("What is {a} + {b}?", "Add {a} and {b}.", "{a} plus {b} equals what?", "Give the sum of {a} and {b}."),
)
def addition(rng: Rng, level: int) -> Draw:
    """Two non-negative numbers."""
    high_a, high_b = _SUM_RANGES[level]
    a, b = rng.between(high_a // 10, high_a), rng.between(high_b // 10, high_b)
    return {"a": a, "b": b}, str(a + b)


@family(
    "subtraction",
    title="Subtraction",
    group="arithmetic",
    phrasings=("What is {a} - {b}?", "Subtract {b} from {a}.", "{a} minus {b} equals what?", "Take {b} away from {a}."),
)
def subtraction(rng: Rng, level: int) -> Draw:
    """Two non-negative numbers whose difference is not negative."""
    high_a, high_b = _SUM_RANGES[level]
    a, b = rng.between(high_a // 10, high_a), rng.between(high_b // 10, high_b)
    a, b = max(a, b), min(a, b)
    return {"a": a, "b": b}, str(a - b)


@family(
    "multiplication",
    title="Multiplication",
    group="arithmetic",
    phrasings=(
        "What is {a} * {b}?",
        "Multiply {a} by {b}.",
        "{a} times {b} equals what?",
        "Give the product of {a} and {b}.",
    ),
)
def multiplication(rng: Rng, level: int) -> Draw:
    """Two numbers of the multiplication table, then beyond it."""
    high_a, high_b = _PRODUCT_RANGES[level]
    a, b = rng.between(1, high_a), rng.between(1, high_b)
    return {"a": a, "b": b}, str(a * b)


@family(
    "remainder",
    title="Remainders",
    group="arithmetic",
    phrasings=(
        "What is {a} mod {b}?",
        "Divide {a} by {b}. What is the remainder?",
        "Give the remainder of {a} divided by {b}.",
        "What is left over when {a} is split into groups of {b}?",
    ),
)
def remainder(rng: Rng, level: int) -> Draw:
    """A number modulo a one-digit number."""
    a, b = rng.between(1, _SINGLE_MAXIMUM[level]), rng.between(2, 3 + level)
    return {"a": a, "b": b}, str(a % b)


@family(
    "parity",
    title="Even or odd",
    group="arithmetic",
    phrasings=(
        "Is {a} even or odd?",
        "Say even or odd: {a}",
        "Tell whether {a} is odd or even.",
        "The number {a} is even or odd?",
    ),
)
def parity(rng: Rng, level: int) -> Draw:
    """One number; two possible answers."""
    a = rng.between(0, 10 ** (level + 1) - 1)
    return {"a": a}, "odd" if a % 2 else "even"


@family(
    "missing_number",
    title="Missing number",
    group="arithmetic",
    phrasings=(
        "{a} + ? = {c}. What is the missing number?",
        "Find x: {a} + x = {c}",
        "What must be added to {a} to get {c}?",
        "Which number completes {a} + _ = {c}?",
    ),
)
def missing_number(rng: Rng, level: int) -> Draw:
    """A sum with its second part hidden."""
    high_a, high_b = _SUM_RANGES[level]
    a, b = rng.between(0, high_a), rng.between(0, high_b)
    return {"a": a, "c": a + b}, str(b)


@family(
    "chain",
    title="Chains of plus and minus",
    group="arithmetic",
    phrasings=("What is {chain}?", "Compute {chain}.", "Work out {chain}.", "Give the value of {chain}."),
)
def chain(rng: Rng, level: int) -> Draw:
    """Three to five small numbers added and subtracted; no intermediate result is negative."""
    count = 3 if level < 3 else level
    high = (5, 9, 9, 20, 30)[level - 1]
    total = rng.between(1, high)
    text = str(total)
    for _ in range(count - 1):
        term = rng.between(1, high)
        if term <= total and rng.chance(0.5):
            total -= term
            text += f" - {term}"
        else:
            total += term
            text += f" + {term}"
    return {"chain": text}, str(total)


def _number_list(rng: Rng, level: int) -> list[int]:
    """Different numbers: 2 below 10, 3 below 20, 4 below 100, 5 below 100, 6 below 1000."""
    high = (9, 19, 99, 99, 999)[level - 1]
    numbers: list[int] = []
    while len(numbers) < level + 1:
        number = rng.between(0, high)
        if number not in numbers:
            numbers.append(number)
    return numbers


def _spaced(values: list[int]) -> str:
    return " ".join(map(str, values))


@family(
    "largest",
    title="Largest number",
    group="comparison",
    phrasings=(
        "Which is the largest: {list}?",
        "Find the maximum of {list}.",
        "Pick the biggest number: {list}",
        "From {list} choose the greatest.",
    ),
)
def largest(rng: Rng, level: int) -> Draw:
    """The largest of a list of numbers."""
    numbers = _number_list(rng, level)
    return {"list": _spaced(numbers)}, str(max(numbers))


@family(
    "smallest",
    title="Smallest number",
    group="comparison",
    phrasings=(
        "Which is the smallest: {list}?",
        "Find the minimum of {list}.",
        "Pick the lowest number: {list}",
        "From {list} choose the least.",
    ),
)
def smallest(rng: Rng, level: int) -> Draw:
    """The smallest of a list of numbers."""
    numbers = _number_list(rng, level)
    return {"list": _spaced(numbers)}, str(min(numbers))


@family(
    "sort_numbers",
    title="Sorting numbers",
    group="comparison",
    phrasings=(
        "Sort in rising order: {list}",
        "Put {list} in order from small to large.",
        "Arrange the numbers {list} ascending.",
        "Order these from lowest to highest: {list}",
    ),
)
def sort_numbers(rng: Rng, level: int) -> Draw:
    """A list of different numbers, sorted."""
    numbers = _number_list(rng, level)
    return {"list": _spaced(numbers)}, _spaced(sorted(numbers))


@family(
    "next_term",
    title="Next term of a sequence",
    group="sequences",
    phrasings=(
        "What comes next: {list}?",
        "Continue the sequence {list} with one number.",
        "Give the next number after {list}.",
        "The numbers {list} follow a rule. Which one is next?",
    ),
)
def next_term(rng: Rng, level: int) -> Draw:
    """An arithmetic progression; from level 4 also falling, at level 5 also doubling."""
    step = rng.between(1, (2, 5, 9, 12, 20)[level - 1])
    start = rng.between(0, (10, 20, 50, 60, 100)[level - 1])
    if level == 5 and rng.chance(0.3):
        terms = [(start % 12 + 1) * 2**i for i in range(5)]
    else:
        terms = [start + i * step for i in range(5)]
        if level >= 4 and rng.chance(0.5):
            terms.reverse()
    return {"list": _spaced(terms[:4])}, str(terms[4])


@family(
    "digit_sum",
    title="Sum of digits",
    group="arithmetic",
    phrasings=(
        "What is the sum of the digits of {a}?",
        "Add up the digits of {a}.",
        "Sum every digit in {a}.",
        "Total of the digits in the number {a}?",
    ),
)
def digit_sum(rng: Rng, level: int) -> Draw:
    """A number of level + 1 digits."""
    a = rng.between(10**level, 10 ** (level + 1) - 1)
    return {"a": a}, str(sum(map(int, str(a))))
