"""Families about small everyday knowledge: logic, dates, units, stories with names."""

from __future__ import annotations

from itertools import pairwise

from tiltyard_eval.generators.core import Draw, Rng, family
from tiltyard_eval.generators.words import NAMES, THINGS

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
# Larger unit, smaller unit, how many of the smaller one make one of the larger.
_UNITS = (
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("meters", "centimeters", 100),
    ("hours", "minutes", 60),
    ("kilometers", "meters", 1000),
    ("days", "hours", 24),
    ("pairs", "pieces", 2),
    ("dozens", "pieces", 12),
)
_ROMAN = ((100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))
_COMPARATIVES = (("taller", "tallest"), ("older", "oldest"), ("faster", "fastest"), ("richer", "richest"))


@family(
    "boolean",
    title="Boolean logic",
    group="logic",
    phrasings=(
        "What is {expression}?",
        "Evaluate: {expression}",
        "Is this true or false: {expression}",
        "Give the truth value of {expression}.",
    ),
)
def boolean(rng: Rng, level: int) -> Draw:
    """An expression of level + 1 constants, each perhaps negated, joined from the left with brackets."""

    def literal() -> tuple[str, bool]:
        value = rng.chance(0.5)
        if rng.chance(0.3):
            return ("not true" if value else "not false"), not value
        return ("true" if value else "false"), value

    text, value = literal()
    for i in range(level):
        term, term_value = literal()
        left = f"({text})" if i else text
        if rng.chance(0.5):
            text, value = f"{left} and {term}", value and term_value
        else:
            text, value = f"{left} or {term}", value or term_value
    return {"expression": text}, "true" if value else "false"


@family(
    "weekday",
    title="Weekdays",
    group="calendar",
    phrasings=(
        "Which day is {n} days after {day}?",
        "Today is {day}. Which day is it in {n} days?",
        "Count {n} days on from {day}.",
        "It is {day} now. Name the day {n} days later.",
    ),
)
def weekday(rng: Rng, level: int) -> Draw:
    """A weekday some days later."""
    index, n = rng.below(7), rng.between(2, (3, 6, 10, 20, 40)[level - 1])
    return {"day": _WEEKDAYS[index], "n": n}, _WEEKDAYS[(index + n) % 7]


@family(
    "month",
    title="Months",
    group="calendar",
    phrasings=(
        "Which month is {n} months after {month}?",
        "It is {month}. Which month is it in {n} months?",
        "Count {n} months on from {month}.",
        "Now it is {month}. Name the month {n} months later.",
    ),
)
def month(rng: Rng, level: int) -> Draw:
    """A month some months later."""
    index, n = rng.below(12), rng.between(2, (3, 6, 11, 18, 30)[level - 1])
    return {"month": _MONTHS[index], "n": n}, _MONTHS[(index + n) % 12]


@family(
    "clock",
    title="Time of day",
    group="calendar",
    phrasings=(
        "It is {time}. What time is it {n} minutes later?",
        "Add {n} minutes to {time}.",
        "A train leaves at {time} and travels {n} minutes. When does it arrive?",
        "What does the clock show {n} minutes after {time}?",
    ),
)
def clock(rng: Rng, level: int) -> Draw:
    """A time of day in 24 hours, some minutes later."""
    step = (10, 10, 5, 5, 1)[level - 1]
    hour, minute = rng.below(24), rng.below(60 // step) * step
    n = rng.between(1, (20, 50, 60, 90, 150)[level - 1] // step) * step
    total = (hour * 60 + minute + n) % (24 * 60)
    return {"time": f"{hour:02d}:{minute:02d}", "n": n}, f"{total // 60:02d}:{total % 60:02d}"


@family(
    "units",
    title="Units",
    group="everyday",
    phrasings=(
        "How many {small} are {n} {large}?",
        "Convert {n} {large} to {small}.",
        "{n} {large} make how many {small}?",
        "Express {n} {large} in {small}.",
    ),
)
def units(rng: Rng, level: int) -> Draw:
    """A number of larger units in smaller ones; from level 4 the other way round as well."""
    large, small, factor = rng.pick(_UNITS)
    n = rng.between(2, (5, 9, 15, 20, 40)[level - 1])
    if level >= 4 and rng.chance(0.5):
        return {"n": n * factor, "large": small, "small": large}, str(n)
    return {"n": n, "large": large, "small": small}, str(n * factor)


@family(
    "roman",
    title="Roman numerals",
    group="everyday",
    phrasings=(
        "Write {n} as a Roman numeral.",
        "What is {n} in Roman numerals?",
        "Convert {n} to Roman.",
        "How did the Romans write {n}?",
    ),
)
def roman(rng: Rng, level: int) -> Draw:
    """Numbers to 10, 20, 40, 60, 99 in Roman numerals."""
    n = rest = rng.between(1, (10, 20, 40, 60, 99)[level - 1])
    text = ""
    for value, letters in _ROMAN:
        text += letters * (rest // value)
        rest %= value
    return {"n": n}, text


@family(
    "story",
    title="Stories with numbers",
    group="everyday",
    phrasings=(
        "{story} How many {things} has {name} now?",
        "{story} What number of {things} does {name} have?",
        "{story} Count the {things} of {name}.",
        "{story} {name} now has how many {things}?",
    ),
)
def story(rng: Rng, level: int) -> Draw:
    """Someone has things, gets some and gives some away, in one to three steps."""
    name, things = rng.pick(NAMES), rng.pick(THINGS)
    high = (9, 9, 20, 20, 50)[level - 1]
    total = rng.between(2, high)
    sentences = [f"{name} has {total} {things}."]
    for _ in range((1, 2, 2, 3, 3)[level - 1]):
        change = rng.between(1, high)
        if change <= total and rng.chance(0.5):
            total -= change
            sentences.append(f"{name} gives away {change}.")
        else:
            total += change
            sentences.append(f"{name} gets {change} more.")
    return {"story": " ".join(sentences), "things": things, "name": name}, str(total)


@family(
    "order_people",
    title="Ordering people",
    group="logic",
    phrasings=(
        "{facts} Who is the {superlative}?",
        "{facts} Name the {superlative}.",
        "{facts} Which person is {superlative}?",
        "Read: {facts} The {superlative} one is who?",
    ),
)
def order_people(rng: Rng, level: int) -> Draw:
    """A chain of comparisons in random order; who stands at the top. Two people at level 1, six at level 5."""
    people = rng.sample(NAMES, level + 1)
    comparative, superlative = rng.pick(_COMPARATIVES)
    facts = [f"{a} is {comparative} than {b}." for a, b in pairwise(people)]
    return {"facts": " ".join(rng.shuffled(facts)), "superlative": superlative}, people[0]


@family(
    "possession",
    title="Who has what",
    group="logic",
    phrasings=(
        "{facts} Who has the {thing}?",
        "{facts} Name the owner of the {thing}.",
        "{facts} The {thing} belongs to whom?",
        "Read: {facts} Which person has the {thing}?",
    ),
)
def possession(rng: Rng, level: int) -> Draw:
    """Some people and their things; find one owner. From level 3 on, things change hands."""
    count = (2, 3, 3, 4, 4)[level - 1]
    people, things = rng.sample(NAMES, count), rng.sample(THINGS, count)
    owner = dict(zip(things, people, strict=True))
    facts = [f"{person} has the {thing}." for thing, person in owner.items()]
    for _ in range((0, 0, 1, 1, 2)[level - 1]):
        thing, receiver = rng.pick(things), rng.pick(people)
        if owner[thing] != receiver:
            facts.append(f"{owner[thing]} gives {receiver} the {thing}.")
            owner[thing] = receiver
    thing = rng.pick(things)
    return {"facts": " ".join(facts), "thing": thing}, owner[thing]
