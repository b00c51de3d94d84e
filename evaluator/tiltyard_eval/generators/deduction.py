"""Families of deduction: who tells the truth, what follows from rules, which numbers fit conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from tiltyard_eval.generators.core import Draw, Rng, family
from tiltyard_eval.generators.words import NAMES

Claim = tuple[int, int, int | None, bool]
"""Speaker, one or two whom the claim is about, and whether it says that the one lies, or that the two are not alike."""

_TRAITS = ("brave", "calm", "clever", "cold", "happy", "kind", "loud", "proud", "quick", "quiet", "strong", "tired")


@family(
    "truth_tellers",
    title="Truth-tellers and liars",
    group="logic",
    extended=True,
    phrasings=(
        "Each person always lies or never does; two of a kind are alike. {claims} Does {name} lie, yes or no?",
        "Some always lie, the others never; alike are two of one sort. {claims} Is {name} a liar? Say yes or no.",
        "{claims} Everybody always lies or never, and two of a kind are alike. Answer yes or no: {name} is a liar.",
        "On an island live liars and truth-tellers; alike are two of a kind. {claims} yes or no: is {name} a liar?",
    ),
)
def truth_tellers(rng: Rng, level: int) -> Draw:
    """Two to five people speak about each other; exactly one assignment of liars agrees with what they say."""
    people = rng.sample(NAMES, (2, 2, 3, 4, 5)[level - 1])
    wanted = rng.chance(0.5)
    # Whether somebody is accused (by name the one asked about, or two of not being alike) must not tell who lies. At
    # level 1 every share of accusations gives some rule of thumb two thirds; of two people a liar is always accused.
    accused = rng.chance(0.75)
    while True:
        claims = [_claim(rng, speaker, len(people), level) for speaker in range(len(people))]
        fitting = [liars for liars in product((False, True), repeat=len(people)) if _agrees(claims, liars)]
        if len(fitting) != 1 or wanted not in fitting[0]:
            continue
        asked = rng.pick([person for person, lies in enumerate(fitting[0]) if lies == wanted])
        is_accused = any(value and (b is not None or a == asked) for _, a, b, value in claims)
        if level == 1 or is_accused == accused or (level == 2 and wanted):
            break
    texts = []
    for speaker, a, b, value in claims:
        if b is None:
            said = f"{people[a]} {'lies' if value else 'tells the truth'}"
        else:
            said = f"{people[a]} and {people[b]} are {'not alike' if value else 'alike'}"
        texts.append(f'{people[speaker]} says: "{said}."')
    return {"claims": " ".join(texts), "name": people[asked]}, "yes" if wanted else "no"


def _claim(rng: Rng, speaker: int, count: int, level: int) -> Claim:
    others = [person for person in range(count) if person != speaker]
    about = rng.pick(others)
    if level == 1:
        return speaker, about, speaker, rng.chance(0.5)
    if rng.chance(0.7):
        return speaker, about, None, rng.chance(0.5)
    return speaker, about, rng.pick([person for person in (speaker, *others) if person != about]), rng.chance(0.5)


def _agrees(claims: Sequence[Claim], liars: Sequence[bool]) -> bool:
    """Whether liars say what is false and the others what is true."""
    return all(
        ((liars[a] if b is None else liars[a] != liars[b]) == value) != liars[speaker]
        for speaker, a, b, value in claims
    )


@family(
    "rule_chain",
    title="Chains of rules",
    group="logic",
    extended=True,
    phrasings=(
        "{rules} {name} is {given}. Does it follow that {name} is {asked}? Say yes or no.",
        "{rules} We know that {name} is {given}. Must {name} be {asked}, yes or no?",
        "Rules: {rules} Fact: {name} is {given}. Can one conclude that {name} is {asked}? Answer yes or no.",
        "{name} is {given}. {rules} yes or no: then {name} is certainly {asked}.",
    ),
)
def rule_chain(rng: Rng, level: int) -> Draw:
    """Rules "whoever is a is b"; whether one trait follows from another. Rules read backwards prove nothing."""
    wanted = rng.chance(0.5)
    while True:
        traits = rng.sample(_TRAITS, level + 2)
        pairs = [(a, b) for a in traits for b in traits if a != b]
        rules = rng.sample(pairs, (2, 3, 4, 5, 7)[level - 1])
        given, asked = rng.sample(traits, 2)
        known = {given}
        for _ in traits:
            known |= {then for when, then in rules if when in known}
        # A rule from the one to the other, or none out of the one or into the other, would need no search.
        ends = given in {when for when, _ in rules} and asked in {then for _, then in rules}
        trivial = (given, asked) in rules or not ends
        if (asked in known) == wanted and not (trivial and level > 1):
            break
    texts = [rng.pick(("Whoever is {} is {}.", "If someone is {}, they are {}.")).format(*rule) for rule in rules]
    return {
        "rules": " ".join(texts),
        "name": rng.pick(NAMES),
        "given": given,
        "asked": asked,
    }, "yes" if wanted else "no"


@family(
    "count_matching",
    title="Counting what matches",
    group="counting",
    extended=True,
    phrasings=(
        "How many of the numbers {list} are {condition}?",
        "Count the numbers that are {condition}: {list}",
        "{list}. How many of these are {condition}?",
        "In the list {list}, what is the number of entries that are {condition}?",
    ),
)
def count_matching(rng: Rng, level: int) -> Draw:
    """How many of a list of numbers fulfil one condition; from level 3 on two."""
    high = (20, 50, 50, 99, 200)[level - 1]
    numbers = [rng.between(1, high) for _ in range((4, 6, 7, 9, 12)[level - 1])]
    bound, factor = rng.between(high // 4, 3 * high // 4), rng.between(3, 5)
    conditions: list[tuple[str, Callable[[int], bool]]] = [
        ("even", lambda n: n % 2 == 0),
        ("odd", lambda n: n % 2 == 1),
        (f"larger than {bound}", lambda n: n > bound),
        (f"smaller than {bound}", lambda n: n < bound),
        (f"divisible by {factor}", lambda n: n % factor == 0),
    ]
    chosen = [rng.pick(conditions)]
    if level >= 3:
        chosen = [rng.pick(conditions[:2]), rng.pick(conditions[2:])]
    count = sum(all(test(number) for _, test in chosen) for number in numbers)
    return {"list": " ".join(map(str, numbers)), "condition": " and ".join(text for text, _ in chosen)}, str(count)
