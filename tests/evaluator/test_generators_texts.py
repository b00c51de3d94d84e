"""Deduction, reading and instructions: every answer found again from the words of the question."""

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tiltyard_eval.checks import Check, fulfils
from tiltyard_eval.generators import LEVELS, REGISTRY, Rng

IN_OTHER_FILES = {"algebra", "code reading", "grids", "graphs"}

Fields = Mapping[str, Any]

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: number for number, word in enumerate(COUNTS)}


def _truth_tellers(fields: Fields) -> str:
    claims = re.findall(
        r'(\w+) says: "(\w+)(?: and (\w+))? (lies|tells the truth|are alike|are not alike)\."', fields["claims"]
    )
    people = [speaker for speaker, *_ in claims]
    verdicts = set()
    for lies in itertools.product([True, False], repeat=len(people)):
        liar = dict(zip(people, lies, strict=True))
        said = [
            {
                "lies": liar[a],
                "tells the truth": not liar[a],
                "are alike": liar[a] == liar.get(b),
                "are not alike": liar[a] != liar.get(b),
            }[claim]
            for _, a, b, claim in claims
        ]
        assert all(a != b for _, a, b, _ in claims)
        if said == [not liar[speaker] for speaker in people]:
            verdicts.add(liar[fields["name"]])
    (verdict,) = verdicts
    return "yes" if verdict else "no"


def _rule_chain(fields: Fields) -> str:
    rules = re.findall(r"(?:Whoever|If someone) is (\w+)(?: is|, they are) (\w+)\.", fields["rules"])
    known, before = {fields["given"]}, set[str]()
    while known != before:
        before = set(known)
        known |= {then for when, then in rules if when in known}
    return "yes" if fields["asked"] in known else "no"


def _count_matching(fields: Fields) -> str:
    condition = fields["condition"].replace("larger than", "n >").replace("smaller than", "n <")
    condition = re.sub(r"divisible by (\d)", r"n % \1 == 0", condition)
    condition = condition.replace("even", "n % 2 == 0").replace("odd", "n % 2 == 1")
    return str(sum(eval(condition, {"n": int(n)}) for n in fields["list"].split()))  # noqa: S307  our own text


def _read_profiles(fields: Fields) -> str:
    facts: dict[str, dict[str, str]] = {}
    person = ""
    for sentence in re.findall(r"[^.]+\.", fields["text"]):
        subject, verb, thing = re.fullmatch(r" ?(\w+) (lives? in|works? as a|ha(?:s|ve) a) (\w+)\.", sentence).groups()
        person = person if subject == "They" else subject
        facts.setdefault(person, {})[verb[:2]] = thing
    asked = {"town": "li", "job": "wo", "animal": "ha"}[re.search(r"town|job|animal", fields["question"])[0]]
    names = [
        name for name, known in facts.items() if set(re.findall(r"\w+", fields["question"])) & {name, *known.values()}
    ]
    (name,) = names
    return facts[name][asked]


def _read_places(fields: Fields) -> str:
    where: dict[str, str] = {}
    holder: dict[str, str] = {}
    for sentence in re.findall(r"[^.]+", fields["text"]):
        words = sentence.split()
        match words:
            case ["The", thing, "lies", "in", "the", room]:
                where[thing] = room
            case [person, "goes", "to", "the", room]:
                where |= {person: room} | {thing: room for thing, who in holder.items() if who == person}
            case [person, "takes", "the", thing]:
                assert where[person] == where[thing]
                assert thing not in holder
                holder[thing] = person
            case [person, "drops", "the", thing]:
                assert holder.pop(thing) == person
    return where[fields["thing"]]


def _read_order(fields: Fields) -> str:
    pairs = []
    for a, kind, b in re.findall(r"The (\w+) was (before|after) the (\w+)\.", fields["text"]):
        pairs.append((a, b) if kind == "before" else (b, a))
    for kind, a, b in re.findall(r"(After|Before) the (\w+) came the (\w+)\.", fields["text"]):
        pairs.append((a, b) if kind == "After" else (b, a))
    assert len(pairs) == fields["text"].count(".")
    early, late = zip(*pairs, strict=True)
    (end,) = set(early) - set(late) if fields["which"] == "first" else set(late) - set(early)
    return end


def _read_amounts(fields: Fields) -> str:
    prices = {thing: int(price) for thing, price in re.findall(r"The (\w+) cost (\d+) coins", fields["text"])}
    pays = {
        name: sum(int(count) * prices[thing] for count, thing in re.findall(r"(\d+) (\w+)", bought))
        for name, bought in re.findall(r"(\w+) buys ([^.]+)", fields["text"])
    }
    if found := re.search(r"more than (\w+) does (\w+)", fields["question"]):
        assert pays[found[2]] >= pays[found[1]]
        return str(pays[found[2]] - pays[found[1]])
    return str(pays[re.search(r"does (\w+) pay", fields["question"])[1]])


def _read_except(fields: Fields) -> str:
    first, *sentences = fields["text"].rstrip(".").split(". ")
    everybody = set(re.findall(r"[A-Z]\w+", first))
    for sentence in sentences:
        named = set(re.findall(r"[A-Z]\w+", sentence)) & everybody
        owners = everybody - named if sentence.startswith(("All", "Everybody")) else named
        if re.search(rf"ha(s|ve) {fields['thing']}\b", sentence):
            return str(len(owners))
    raise AssertionError(fields)


def _follow_format(fields: Fields) -> str:
    words, text = fields["list"].split(), fields["format"]
    if "reverse" in text:
        words = words[::-1]
    if "alphabetical" in text:
        words = sorted(words)
    joiner = next(
        sign for name, sign in (("commas", ","), ("hyphens", "-"), ("slashes", "/"), ("plus", "+")) if name in text
    )
    out = joiner.join(word.upper() if "capital" in text else word for word in words)
    for name, (left, right) in {"round": "()", "square": "[]"}.items():
        out = left + out + right if name in text else out
    return out


def _follow_steps(fields: Fields) -> str:
    words = fields["list"].split()
    for step in re.findall(r"[^.]+(?=\.)", fields["steps"]):
        match step.split():
            case ["Reverse", *_]:
                words = words[::-1]
            case ["Remove", "the", "first", "word"]:
                words = words[1:]
            case ["Remove", "the", "last", "word"]:
                words = words[:-1]
            case ["Add", word, *_]:
                words = [*words, word]
            case ["Put", word, *_]:
                words = [word, *words]
            case ["Repeat", *_]:
                words = [*words, words[-1]]
            case ["Swap", *_]:
                words = [words[-1], *words[1:-1], words[0]]
    return " ".join(words)


def _follow_condition(fields: Fields) -> str:
    words = fields["list"].split()
    place = {"first": words[0], "second": words[1], "last": words[-1]}
    for rule in re.findall(r"[^.]+(?=\.)", fields["rules"]):
        *condition, action = rule.removeprefix(" ").rsplit(", ", 1)
        if condition:
            said = condition[0]
            if found := re.search(r'list has the word "(\w+)"', said):
                holds = found[1] in words
            elif found := re.search(r'the (\w+) word has the letter "(\w)"', said):
                holds = found[2] in place[found[1]]
            else:
                holds = len(words[0]) > NUMBERS[re.search(r"more than (\w+) letters", said)[1]]
            if not holds:
                continue
        word = place[re.search(r"write its (\w+) word", action)[1]]
        return word.upper() if "capitals" in action else f"{word} {word}" if "twice" in action else word
    raise AssertionError(fields)


SOLVERS: dict[str, Callable[[Fields], str]] = {
    "truth_tellers": _truth_tellers,
    "rule_chain": _rule_chain,
    "count_matching": _count_matching,
    "read_profiles": _read_profiles,
    "read_places": _read_places,
    "read_order": _read_order,
    "read_amounts": _read_amounts,
    "read_except": _read_except,
    "follow_format": _follow_format,
    "follow_steps": _follow_steps,
    "follow_condition": _follow_condition,
}


@pytest.mark.parametrize("name", SOLVERS)
def test_answers_are_right(name: str) -> None:
    rng = Rng(99)
    for level in LEVELS:
        for _ in range(60):
            fields, answer = REGISTRY[name].draw(rng, level)
            assert answer == SOLVERS[name](fields), (level, fields)


def _name_words(fields: Fields) -> set[Check]:
    count, letter = re.match(
        r"(\w+) different words of three or more letters that begin with the letter (\w)", fields["demand"]
    ).groups()
    found = {Check("words", str(NUMBERS[count])), Check("begin", letter), Check("different", "words")}
    found.add(Check("letters", "3"))
    if banned := re.search(r"do not have the letter (\w)", fields["demand"]):
        found.add(Check("without", banned[1]))
    if "all in" in fields["demand"]:
        found.add(Check("case", "upper" if "capitals" in fields["demand"] else "lower"))
    return found


def _write_line(fields: Fields) -> set[Check]:
    found = {Check("words", str(NUMBERS[fields["count"]]))}
    kinds = {"must have the word": "contain", "first word must": "first", "last word must": "last", "letter": "without"}
    for sentence in fields["demands"].rstrip(".").split(". "):
        named = re.search(r'"(\w+)"', sentence)
        if named is None:
            assert sentence == "No word may stand twice"
            found.add(Check("different", "words"))
        else:
            found.add(Check(next(kind for words, kind in kinds.items() if words in sentence), named[1]))
    return found


def _wanted_number(fields: Fields) -> set[Check]:
    kinds = {r"from (\d+)": "at_least", r"to (\d+)": "at_most", r"divisible by (\d+)": "multiple_of"}
    kinds[r"add up to (\d+)"] = "digit_sum"
    said = {name: re.search(pattern, fields["demand"]) for pattern, name in kinds.items()}
    return {Check(name, number[1]) for name, number in said.items() if number}


def _choose_words(fields: Fields) -> set[Check]:
    letter, banned = re.fullmatch(
        r"with the letter (\w)(?: but without the letter (\w))?", fields["condition"]
    ).groups()
    fitting = [word for word in fields["list"].split() if letter in word and (banned is None or banned not in word)]
    count = NUMBERS[fields["count"]]
    assert count < len(fitting)
    return {Check("words", str(count)), Check("among", " ".join(fitting)), Check("different", "words")}


DEMANDS: dict[str, Callable[[Fields], set[Check]]] = {
    "name_words": _name_words,
    "write_line": _write_line,
    "wanted_number": _wanted_number,
    "choose_words": _choose_words,
}


@pytest.mark.parametrize("name", DEMANDS)
def test_checks_are_what_the_words_demand_and_the_answer_fulfils_them(name: str) -> None:
    fam, rng = REGISTRY[name], Rng(99)
    for level in LEVELS:
        for _ in range(60):
            fields, answer = fam.draw(rng, level)
            checks = fam.checks_of(fields)
            assert len(checks) == len(set(checks))
            assert set(checks) == DEMANDS[name](fields), (level, fields)
            assert fulfils(answer, checks), (level, fields)


def test_no_extended_family_is_left_unchecked() -> None:
    rest = {name for name, fam in REGISTRY.items() if fam.extended and fam.group not in IN_OTHER_FILES}
    assert rest == {*SOLVERS, *DEMANDS}
