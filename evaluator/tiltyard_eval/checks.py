"""Checks: what an answer must fulfil where many answers are right, as in "name three words that begin with b".

Instructions whose fulfilment a program can verify go back to IFEval (Zhou et al. 2023, arXiv 2311.07911). A suite
names checks of this list and brings no code; each takes time linear in the answer. An answer counts when it fulfils
all checks of its question, there is no partial credit. ``process_results`` gives lm-eval that as the metric ``checks``.

Words are what spaces separate, without the punctuation at their ends. What holds no letter and no digit is no word, and
an answer with such a thing does not have the number of words that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

METRIC: Final = "checks"
"""lm-eval's name for the share of answers that fulfil all their checks."""
MAX_CHECKS: Final = 8
MAX_VALUE_CHARS: Final = 200

_PUNCTUATION: Final = ".,;:!?\"'()"
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}")
_COUNT, _NUMBER, _LETTER, _WORD, _WORDS = r"[1-9][0-9]?", r"-?[0-9]{1,9}", r"[a-z]", r"[a-z]+", r"[a-z]+( [a-z]+)*"


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement: a name of ``CHECKS`` and its value as text."""

    name: str
    value: str

    def to_dict(self) -> dict[str, str]:
        """As it stands in a suite's data; one shape for all, because lm-eval reads data as a table."""
        return {"check": self.name, "value": self.value}


def _words(answer: str) -> list[str]:
    return [word.strip(_PUNCTUATION).lower() for word in answer.split()]


def _integer(answer: str) -> int | None:
    return int(answer) if _INTEGER.fullmatch(answer) else None


def _number(test: Callable[[int, int], bool]) -> Callable[[str, str], bool]:
    """A check of an answer that must be an integer in ASCII digits."""

    def passes(answer: str, value: str) -> bool:
        number = _integer(answer)
        return number is not None and test(number, int(value))

    return passes


def _begin(answer: str, value: str) -> bool:
    words = _words(answer)
    return bool(words) and all(word.startswith(value) for word in words)


def _among(answer: str, value: str) -> bool:
    allowed = set(value.split())
    return all(word in allowed for word in _words(answer))


def _case(answer: str, value: str) -> bool:
    return (answer.islower() if value == "lower" else answer.isupper()) and answer.isascii()


def _count(answer: str, value: str) -> bool:
    tokens = answer.split()
    return len(tokens) == int(value) and all(any(map(str.isalnum, token)) for token in tokens)


def _letters(answer: str, value: str) -> bool:
    least = int(value)
    return all(word.isascii() and word.isalpha() and len(word) >= least for word in _words(answer))


@dataclass(frozen=True)
class _Kind:
    """The form that a check's value must have, and the test of an answer against it."""

    value: re.Pattern[str]
    passes: Callable[[str, str], bool]


CHECKS: Final[Mapping[str, _Kind]] = {
    "words": _Kind(re.compile(_COUNT), _count),
    "letters": _Kind(re.compile(_COUNT), _letters),
    "different": _Kind(re.compile("words"), lambda answer, _: len(set(_words(answer))) == len(_words(answer))),
    "begin": _Kind(re.compile(_LETTER), _begin),
    "contain": _Kind(re.compile(_WORD), lambda answer, value: value in _words(answer)),
    "first": _Kind(re.compile(_WORD), lambda answer, value: _words(answer)[:1] == [value]),
    "last": _Kind(re.compile(_WORD), lambda answer, value: _words(answer)[-1:] == [value]),
    "without": _Kind(re.compile(_LETTER), lambda answer, value: value not in answer.lower()),
    "among": _Kind(re.compile(_WORDS), _among),
    "case": _Kind(re.compile("lower|upper"), _case),
    "at_least": _Kind(re.compile(_NUMBER), _number(lambda number, bound: number >= bound)),
    "at_most": _Kind(re.compile(_NUMBER), _number(lambda number, bound: number <= bound)),
    "multiple_of": _Kind(re.compile(_COUNT), _number(lambda number, factor: number % factor == 0)),
    "digit_sum": _Kind(re.compile(_COUNT), _number(lambda number, total: sum(map(int, str(abs(number)))) == total)),
}
"""Every check by name."""


class CheckError(ValueError):
    """Checks of a suite's data that are none; the message says why, and quotes nothing."""


def fulfils(answer: str, checks: Iterable[Check]) -> bool:
    """Whether the answer fulfils all the checks, whose values must have been checked by `parse_checks`."""
    return all(CHECKS[check.name].passes(answer, check.value) for check in checks)


def parse_checks(value: object) -> tuple[Check, ...]:
    """Read the checks of one question as hostile input; raises ``CheckError``."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CHECKS:
        raise CheckError(f"must be a list of 1 to {MAX_CHECKS} checks")
    return tuple(_parse(entry) for entry in value)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval's hook: the document as it was read, and the filtered answer."""
    checks = [Check(entry["check"], entry["value"]) for entry in doc["checks"]]
    return {METRIC: float(fulfils(results[0], checks))}


def _parse(entry: object) -> Check:
    if not isinstance(entry, dict) or entry.keys() != {"check", "value"}:
        raise CheckError("each must be an object with check and value")
    name, value = entry["check"], entry["value"]
    if not isinstance(name, str) or name not in CHECKS:
        raise CheckError(f"the checks there are: {', '.join(CHECKS)}")
    if not isinstance(value, str) or len(value) > MAX_VALUE_CHARS or not CHECKS[name].value.fullmatch(value):
        raise CheckError(f"the value of a check {name!r} has another form")
    return Check(name, value)
