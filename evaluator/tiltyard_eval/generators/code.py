"""Families about reading code: what a short Python program prints.

The programs are written here and are never run by a generator: each keeps its own account of what the program does.
"""

from __future__ import annotations

from tiltyard_eval.generators.core import Draw, Rng, family
from tiltyard_eval.generators.words import pseudo_word

_PRINTS = (
    "{code}\nWhat does this program print?",
    "What is the output of this Python program?\n{code}",
    "Run this program in your head.\n{code}\nWhat stands on the screen?",
    "Python:\n{code}\nWrite what it prints.",
)
_VARIABLES = "abcdkmnpxyz"


def _updated(rng: Rng, value: int, high: int) -> tuple[str, int]:
    """An operator with a number, such as `* 2`, and what it makes of the value."""
    number = rng.between(2, high)
    sign = rng.pick("++-*") if abs(value) < 100 else rng.pick("+-")
    if sign == "*":
        number = rng.between(2, 3)
        return f"* {number}", value * number
    return f"{sign} {number}", value + number if sign == "+" else value - number


@family("code_assign", title="Assignments", group="code reading", extended=True, phrasings=_PRINTS)
def code_assign(rng: Rng, level: int) -> Draw:
    """One to three variables, changed in two to eight lines; one of them is printed."""
    names = rng.sample(_VARIABLES, (1, 2, 2, 3, 3)[level - 1])
    values = {name: rng.between(1, 9) for name in names}
    lines = [f"{name} = {value}" for name, value in values.items()]
    for _ in range((1, 2, 3, 4, 6)[level - 1]):
        name = rng.pick(names)
        if level > 1 and rng.chance(0.5):
            other = rng.pick(names)
            sign = rng.pick("+-")
            values[name] += values[other] if sign == "+" else -values[other]
            lines.append(f"{name} = {name} {sign} {other}")
        else:
            change, values[name] = _updated(rng, values[name], 9)
            lines.append(f"{name} = {name} {change}")
    name = rng.pick(names)
    return {"code": "\n".join([*lines, f"print({name})"])}, str(values[name])


@family("code_branch", title="Branches", group="code reading", extended=True, phrasings=_PRINTS)
def code_branch(rng: Rng, level: int) -> Draw:
    """One if-else at level 1, up to four one after the other; from level 3 conditions have an `elif` or a remainder."""
    name = rng.pick(_VARIABLES)
    value = rng.between(1, 20)
    lines = [f"{name} = {value}"]
    for _ in range((1, 2, 2, 3, 4)[level - 1]):
        bound = value + rng.between(-4, 4)
        if level >= 3 and rng.chance(0.4):
            factor = rng.between(2, 4)
            condition, holds = f"{name} % {factor} == 0", value % factor == 0
        elif rng.chance(0.5):
            condition, holds = f"{name} > {bound}", value > bound
        else:
            condition, holds = f"{name} < {bound}", value < bound
        (then, if_true), (other, if_false) = _updated(rng, value, 9), _updated(rng, value, 9)
        lines += [f"if {condition}:", f"    {name} = {name} {then}"]
        if level >= 3 and rng.chance(0.5):
            last, if_neither = _updated(rng, value, 9)
            limit = value + rng.between(-3, 3)
            lines += [f"elif {name} > {limit}:", f"    {name} = {name} {other}", "else:", f"    {name} = {name} {last}"]
            value = if_true if holds else (if_false if value > limit else if_neither)
        else:
            lines += ["else:", f"    {name} = {name} {other}"]
            value = if_true if holds else if_false
    return {"code": "\n".join([*lines, f"print({name})"])}, str(value)


@family("code_loop", title="Loops", group="code reading", extended=True, phrasings=_PRINTS)
def code_loop(rng: Rng, level: int) -> Draw:
    """A sum over a range; from level 3 only where a condition holds, at level 5 in two loops, one in the other."""
    total, i, j = rng.sample(_VARIABLES, 3)
    value = rng.between(0, 9)
    start = rng.between(0, 3)
    stop = start + rng.between(3, (4, 6, 8, 10, 5)[level - 1])
    step = 1 if level in (1, 5) else rng.between(1, 3)
    span = f"{start}, {stop}" + (f", {step}" if step > 1 else "")
    lines = [f"{total} = {value}", f"for {i} in range({span}):"]
    steps = range(start, stop, step)
    if level == 5:
        inner, plus = rng.between(2, 4), rng.between(0, 3)
        lines += [f"    for {j} in range({inner}):", f"        {total} += {i} * {j} + {plus}"]
        value += sum(a * b + plus for a in steps for b in range(inner))
    elif level >= 3:
        factor, rest = rng.between(2, 3), rng.between(0, 1)
        times = rng.between(2, level)
        lines += [f"    if {i} % {factor} == {rest}:", f"        {total} += {i} * {times}"]
        value += sum(a * times for a in steps if a % factor == rest)
        if level == 4:
            lines += ["    else:", f"        {total} -= 1"]
            value -= sum(a % factor != rest for a in steps)
    else:
        times = rng.between(1, 3)
        lines.append(f"    {total} += {i}" + (f" * {times}" if times > 1 else ""))
        value += sum(a * times for a in steps)
    return {"code": "\n".join([*lines, f"print({total})"])}, str(value)


@family("code_list", title="Lists in code", group="code reading", extended=True, phrasings=_PRINTS)
def code_list(rng: Rng, level: int) -> Draw:
    """A list that grows, shrinks and is turned around in one to five lines; an element or the sum is printed."""
    name = rng.pick(_VARIABLES)
    values = [rng.between(1, 9 if level < 4 else 30) for _ in range(level + 2)]
    lines = [f"{name} = {values}"]
    for _ in range(level):
        kind = rng.pick(("append", "pop", "reverse", "sort", "set") if level > 1 else ("append", "set"))
        k, number = rng.below(len(values)), rng.between(1, 30)
        if kind == "append":
            values.append(number)
            lines.append(f"{name}.append({number})")
        elif kind == "pop" and len(values) > 2:
            del values[k]
            lines.append(f"{name}.pop({k})")
        elif kind == "reverse":
            values.reverse()
            lines.append(f"{name}.reverse()")
        elif kind == "sort":
            values.sort()
            lines.append(f"{name}.sort()")
        else:
            values[k] = number
            lines.append(f"{name}[{k}] = {number}")
    k = rng.below(len(values))
    asked, answer = rng.pick(((f"{name}[{k}]", values[k]), (f"{name}[-1]", values[-1]), (f"sum({name})", sum(values))))
    return {"code": "\n".join([*lines, f"print({asked})"])}, str(answer)


@family("code_text", title="Text in code", group="code reading", extended=True, phrasings=_PRINTS)
def code_text(rng: Rng, level: int) -> Draw:
    """A string that is sliced, joined, turned around or written in capitals in one to five lines."""
    name = rng.pick(_VARIABLES)
    text = pseudo_word(rng, level + 3)
    lines = [f'{name} = "{text}"']
    for _ in range(level):
        kind = rng.pick(("join", "head", "tail", "turn", "upper", "replace"))
        if kind == "turn":
            text = text[::-1]
            lines.append(f"{name} = {name}[::-1]")
        elif kind == "upper" and text != text.upper():
            text = text.upper()
            lines.append(f"{name} = {name}.upper()")
        elif kind == "replace":
            old = rng.pick(text)
            new = rng.pick("aeiou".replace(old, ""))
            text = text.replace(old, new)
            lines.append(f'{name} = {name}.replace("{old}", "{new}")')
        elif kind in ("head", "tail") and len(text) > 3:
            k = rng.between(1, 2)
            text = text[k:] if kind == "tail" else text[:-k]
            lines.append(f"{name} = {name}[{k}:]" if kind == "tail" else f"{name} = {name}[:-{k}]")
        else:
            more = pseudo_word(rng, 2)
            text += more
            lines.append(f'{name} = {name} + "{more}"')
    return {"code": "\n".join([*lines, f"print({name})"])}, text


@family("code_function", title="Functions in code", group="code reading", extended=True, phrasings=_PRINTS)
def code_function(rng: Rng, level: int) -> Draw:
    """A function that is called: once, within its own argument, or from level 4 by itself (recursion)."""
    f, a, b = rng.pick("fgh"), *rng.sample(_VARIABLES, 2)
    x, y = rng.between(1, 9), rng.between(1, 9)
    times, plus = rng.between(2, 4), rng.between(1, 9)
    if level <= 2:
        lines = [f"def {f}({a}, {b}):", f"    return {a} * {times} {'+' if plus % 2 else '-'} {b}"]
        sign = 1 if plus % 2 else -1
        inner = x * times + sign * y
        value = inner if level == 1 else inner * times + sign * plus
        lines.append(f"print({f}({x}, {y}))" if level == 1 else f"print({f}({f}({x}, {y}), {plus}))")
        return {"code": "\n".join(lines)}, str(value)
    if level == 3:
        bound = rng.between(3, 8)
        lines = [
            f"def {f}({a}):",
            f"    if {a} > {bound}:",
            f"        return {a} - {plus}",
            f"    return {a} * {times}",
        ]
        lines.append(f"print({f}({x}) + {f}({y}))")
        return {"code": "\n".join(lines)}, str(sum(v - plus if v > bound else v * times for v in (x, y)))
    step, base = rng.between(1, 2), rng.between(0, 3)
    depth = rng.between(3, 6) if level == 4 else rng.between(4, 9)
    rule = f"{f}({a} - {step}) + {a}" if level == 4 else f"{f}({a} - {step}) * 2 - {a}"
    lines = [
        f"def {f}({a}):",
        f"    if {a} <= 0:",
        f"        return {base}",
        f"    return {rule}",
        f"print({f}({depth}))",
    ]
    value = base
    for v in reversed(range(depth, 0, -step)):
        value = value + v if level == 4 else value * 2 - v
    return {"code": "\n".join(lines)}, str(value)
