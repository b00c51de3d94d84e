"""Families of following instructions that leave a choice, in the manner of IFEval (Zhou et al. 2023, arXiv 2311.07911).

Every answer is right that fulfils the checks which the instruction states; the gold answer is one of them. A skeleton
holds the checks as the field `checks`, which no phrasing shows; what it shows says the same in words.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiltyard_eval.checks import Check, fulfils
from tiltyard_eval.generators.core import Draw, Rng, family
from tiltyard_eval.generators.instructions import GROUP
from tiltyard_eval.generators.words import WORDS, words

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SORTED_WORDS = sorted(WORDS)


def _as_field(checks: list[Check]) -> str:
    return "; ".join(f"{check.name} {check.value}" for check in checks)


def _of_field(fields: Mapping[str, str]) -> tuple[Check, ...]:
    return tuple(Check(*text.split(" ", 1)) for text in fields["checks"].split("; "))


@family(
    "name_words",
    title="Naming words",
    group=GROUP,
    extended=True,
    checks=_of_field,
    phrasings=(
        "Write {demand}. Put one space between the words.",
        "Give me {demand}, on one line with spaces between them.",
        "Your answer must be {demand}, separated by spaces. Nothing else.",
        "Think of {demand}. Write them with spaces between them and add nothing.",
    ),
)
def name_words(rng: Rng, level: int) -> Draw:
    """Two to four words of a first letter; from level 3 without another letter, from level 4 in one case."""
    count = (2, 3, 3, 3, 4)[level - 1]
    while True:
        letter, banned = rng.pick("abcdefghklmnoprstw"), rng.pick("aeioulnrst")
        checks = [
            Check("words", str(count)),
            Check("begin", letter),
            Check("letters", "3"),
            Check("different", "words"),
        ]
        demand = f"{_COUNTS[count]} different words of three or more letters that begin with the letter {letter}"
        if level >= 3:
            checks.append(Check("without", banned))
            demand += f" and do not have the letter {banned}"
        case = rng.pick(("lower", "upper"))
        if level >= 4:
            checks.append(Check("case", case))
            demand += ", all in " + ("capitals" if case == "upper" else "small letters")
        fitting = [word for word in _SORTED_WORDS if word[0] == letter]
        fitting = [word for word in fitting if level < 3 or banned not in word][:count]
        answer = " ".join(fitting)
        answer = answer.upper() if level >= 4 and case == "upper" else answer
        if len(fitting) == count and fulfils(answer, checks):
            return {"demand": demand, "checks": _as_field(checks)}, answer


@family(
    "write_line",
    title="Writing a line of words",
    group=GROUP,
    extended=True,
    checks=_of_field,
    phrasings=(
        "Write one line of exactly {count} words. {demands}",
        "Answer with exactly {count} words on one line. {demands}",
        "{demands} Write a line that is exactly {count} words long.",
        "Make up a line. It has exactly {count} words. {demands}",
    ),
)
def write_line(rng: Rng, level: int) -> Draw:
    """A line of exactly so many words, with a word that it must hold and up to four demands more."""
    count = rng.between(3 + level // 2, 4 + level)
    held, first, last = words(rng, 3)
    banned = rng.pick([letter for letter in "aeioustlrncdghkmpwy" if letter not in held + first + last])
    checks = [Check("words", str(count)), Check("contain", held)]
    demands = [f'It must have the word "{held}".']
    more = [
        (Check("first", first), f'The first word must be "{first}".'),
        (Check("last", last), f'The last word must be "{last}".'),
        (Check("without", banned), f'The letter "{banned}" must not occur.'),
        (Check("different", "words"), "No word may stand twice."),
    ]
    for check, demand in rng.sample(more, level - 1):
        checks.append(check)
        demands.append(demand)
    demanded = {check.name: check.value for check in checks}
    line = ([first] if "first" in demanded else []) + [held]
    end = [last] if "last" in demanded else []
    filling = [word for word in _SORTED_WORDS if word not in (*line, *end) and demanded.get("without", " ") not in word]
    line += filling[: count - len(line) - len(end)]
    return {"count": _COUNTS[count], "demands": " ".join(demands), "checks": _as_field(checks)}, " ".join(line + end)


@family(
    "wanted_number",
    title="A number as wanted",
    group=GROUP,
    extended=True,
    checks=_of_field,
    phrasings=(
        "Write in digits one whole number {demand}.",
        "Name in digits any whole number {demand}.",
        "Give a whole number {demand}. Digits only.",
        "Which whole number {demand} comes to your mind? Write just one, in digits.",
    ),
)
def wanted_number(rng: Rng, level: int) -> Draw:
    """A number in a range; a multiple from level 2 on, with a sum of digits from level 4 on."""
    while True:
        low = rng.between(*((10, 90), (10, 200), (50, 500), (100, 900), (200, 3000))[level - 1])
        high = low + rng.between(*((3, 9), (15, 40), (20, 60), (80, 150), (150, 400))[level - 1])
        factor, digits = rng.between(2, (2, 5, 9, 6, 9)[level - 1]), rng.between(5, 16)
        checks = [Check("at_least", str(low)), Check("at_most", str(high))]
        demand = f"from {low} to {high}"
        if level >= 2:
            checks.append(Check("multiple_of", str(factor)))
            demand += f" that is divisible by {factor}"
        if level >= 4:
            checks.append(Check("digit_sum", str(digits)))
            demand += f" and whose digits add up to {digits}"
        multiples = range(low + -low % factor, high + 1, factor) if level >= 2 else range(low, high + 1)
        fitting = [n for n in multiples if level < 4 or sum(map(int, str(n))) == digits]
        if len(fitting) >= 2:
            return {"demand": demand, "checks": _as_field(checks)}, str(fitting[0])


@family(
    "choose_words",
    title="Choosing words from a list",
    group=GROUP,
    extended=True,
    checks=_of_field,
    phrasings=(
        "Choose {count} of these words {condition}, and write only those, in any order, with spaces between: {list}",
        "From {list} write {count} {condition}, with spaces between. Any order will do.",
        "Words: {list}. Pick {count} {condition}, and write them with spaces between and nothing else.",
        "Here are words: {list}. Write any {count} of those {condition}, with spaces between.",
    ),
)
def choose_words(rng: Rng, level: int) -> Draw:
    """Some of those words of a list that fulfil one condition, or from level 3 two; more fulfil it than are wanted."""
    size, count = (5, 6, 8, 10, 12)[level - 1], (1, 2, 2, 3, 3)[level - 1]
    while True:
        listed = words(rng, size)
        letter, banned = rng.pick("aeioulnrst"), rng.pick("aeioulnrst")
        condition = f"with the letter {letter}"
        fitting = [word for word in listed if letter in word]
        if level >= 3:
            condition += f" but without the letter {banned}"
            fitting = [word for word in fitting if banned not in word]
        if count < len(fitting) < size:
            break
    checks = [Check("words", str(count)), Check("among", " ".join(fitting)), Check("different", "words")]
    fields = {"list": " ".join(listed), "count": _COUNTS[count], "condition": condition, "checks": _as_field(checks)}
    return fields, " ".join(fitting[:count])
