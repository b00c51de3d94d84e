"""Every own basic family's answers, solved again by other code than the generator's."""

import calendar
import datetime
import itertools
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tiltyard_eval.generators import LEVELS, REGISTRY, Rng
from tiltyard_eval.generators.gym import GROUP as GYM_GROUP

Fields = Mapping[str, Any]


def _numbers(fields: Fields) -> list[int]:
    return [int(text) for text in fields["list"].split()]


def _words(fields: Fields) -> list[str]:
    return fields["list"].split()


def _next_term(fields: Fields) -> str:
    a, b, c, d = _numbers(fields)
    return str(d + (d - c)) if b - a == d - c else str(d * 2)


def _weekday(fields: Fields) -> str:
    monday = datetime.date(2024, 1, 1)
    start = next(
        monday + datetime.timedelta(days=i)
        for i in range(7)
        if f"{monday + datetime.timedelta(days=i):%A}" == fields["day"]
    )
    return f"{start + datetime.timedelta(days=fields['n']):%A}"


def _month(fields: Fields) -> str:
    names = list(calendar.month_name)[1:]
    return next(itertools.islice(itertools.cycle(names), names.index(fields["month"]) + fields["n"], None))


def _clock(fields: Fields) -> str:
    start = datetime.datetime.strptime(fields["time"], "%H:%M").replace(tzinfo=datetime.UTC)
    return f"{start + datetime.timedelta(minutes=fields['n']):%H:%M}"


def _units(fields: Fields) -> str:
    in_base = {"days": 24 * 60, "hours": 60, "minutes": 1, "weeks": 7 * 24 * 60, "years": 12, "months": 1}
    in_base |= {"kilometers": 100_000, "meters": 100, "centimeters": 1, "pairs": 2, "dozens": 12, "pieces": 1}
    quotient, rest = divmod(fields["n"] * in_base[fields["large"]], in_base[fields["small"]])
    assert rest == 0
    return str(quotient)


def _from_roman(text: str) -> int:
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[letter] for letter in text]
    return sum(-v if v < max(values[i:]) else v for i, v in enumerate(values))


def _story(fields: Fields) -> str:
    start, *changes = re.findall(r"(has|gives away|gets) (\d+)", fields["story"])
    signs = {"gets": 1, "gives away": -1}
    return str(int(start[1]) + sum(signs[verb] * int(number) for verb, number in changes))


def _order_people(fields: Fields) -> str:
    pairs = [(s.split()[0], s.split()[-1]) for s in fields["facts"].rstrip(".").split(". ")]
    (top,) = {above for above, _ in pairs} - {below for _, below in pairs}
    return top


def _possession(fields: Fields) -> str:
    last = None
    for sentence in fields["facts"].rstrip(".").split(". "):
        if sentence.endswith(" the " + fields["thing"]):
            last = sentence.split()[2] if " gives " in sentence else sentence.split()[0]
    assert last is not None
    return last


def _alphabetically(words: list[str]) -> list[str]:
    return sorted(words, key=lambda word: [string.ascii_lowercase.index(letter) for letter in word])


SOLVERS: dict[str, Callable[[Fields], str]] = {
    "addition": lambda f: str(f["a"] - -f["b"]),
    "subtraction": lambda f: str(f["a"] + -f["b"]),
    "multiplication": lambda f: str(sum(f["a"] for _ in range(f["b"]))),
    "remainder": lambda f: str(f["a"] - f["b"] * int(f["a"] / f["b"])),
    "parity": lambda f: ["even", "odd"][int(str(f["a"])[-1]) % 2],
    "missing_number": lambda f: str(f["c"] - f["a"]),
    "chain": lambda f: str(sum(int(term) for term in re.findall(r"-?\d+", f["chain"].replace("- ", "-")))),
    "largest": lambda f: str(sorted(_numbers(f))[-1]),
    "smallest": lambda f: str(sorted(_numbers(f))[0]),
    "sort_numbers": lambda f: " ".join(sorted(_words(f), key=lambda text: (len(text), text))),
    "next_term": _next_term,
    "digit_sum": lambda f: str(sum(digit * str(f["a"]).count(str(digit)) for digit in range(10))),
    "boolean": lambda f: str(eval(f["expression"], {"true": True, "false": False})).lower(),  # noqa: S307  our own text
    "weekday": _weekday,
    "month": _month,
    "clock": _clock,
    "units": _units,
    "story": _story,
    "order_people": _order_people,
    "possession": _possession,
    "count_items": lambda f: str(f["list"].count(" ") + 1),
    "count_word": lambda f: str(Counter(_words(f))[f["word"]]),
    "sort_words": lambda f: " ".join(_alphabetically(_words(f))),
    "first_in_alphabet": lambda f: _alphabetically(_words(f))[0],
    "last_in_alphabet": lambda f: _alphabetically(_words(f))[-1],
    "membership": lambda f: "yes" if re.search(rf"\b{f['word']}\b", f["list"]) else "no",
    "item_at": lambda f: _words(f)[f["k"] - 1],
    "reverse_list": lambda f: " ".join(_words(f)[::-1]),
    "remove_duplicates": lambda f: " ".join(w for i, w in enumerate(_words(f)) if w not in _words(f)[:i]),
    "drop_word": lambda f: " ".join(re.sub(rf"\b{f['word']}\b", "", f["list"]).split()),
    "reverse_word": lambda f: "".join(reversed(f["word"])),
    "letter_at": lambda f: f["word"][f["k"] - 1],
    "last_letters": lambda f: "".join(re.findall(r"\w\b", f["list"])),
    "first_letters": lambda f: "".join(re.findall(r"\b\w", f["list"])),
    "count_letter": lambda f: str(sum(letter == f["letter"] for letter in f["word"])),
    "word_length": lambda f: str(sum(1 for _ in f["word"])),
    "replace_letter": lambda f: "".join(f["new"] if letter == f["old"] else letter for letter in f["word"]),
    "remove_letter": lambda f: "".join(letter for letter in f["word"] if letter != f["letter"]),
    "join_words": lambda f: "".join(_words(f)),
    "shift_letters": lambda f: "".join(chr((ord(letter) - ord("a") + 1) % 26 + ord("a")) for letter in f["word"]),
    "repeat_string": lambda f: "".join(f["word"] for _ in range(f["n"])),
    "double_letters": lambda f: re.sub(r"(.)", r"\1\1", f["word"]),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_answers_are_right(name: str) -> None:
    rng = Rng(99)
    for level in LEVELS:
        for _ in range(100):
            fields, answer = REGISTRY[name].draw(rng, level)
            assert answer == SOLVERS[name](fields), (level, fields)


def test_roman_numerals_read_back() -> None:
    rng = Rng(99)
    for level in LEVELS:
        for _ in range(100):
            fields, answer = REGISTRY["roman"].draw(rng, level)
            assert _from_roman(answer) == fields["n"]
            assert not re.search(r"(.)\1\1\1", answer)


def test_no_family_is_left_unchecked() -> None:
    """But for the extended ones, which have files of their own."""
    own = {name for name, fam in REGISTRY.items() if fam.group != GYM_GROUP and not fam.extended}
    assert own == {*SOLVERS, "roman"}
