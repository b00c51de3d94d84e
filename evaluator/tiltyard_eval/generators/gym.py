"""Families made by reasoning-gym (Apache-2.0), an optional dependency: ``pip install 'tiltyard[suites]'``.

Only data sets that were screened are here: deterministic for a seed, their verifier gives their own answer full marks,
the answer is unique and one short line, so that an exact match is a fair score, and no constant answer gets far
(`letter_counting` is not here: of the letters it asks for, most stand in a word once). Their code uses more of Python's
``random`` than its documented stable part; the bytes are the same for one version of Python and of reasoning-gym.

Each has one phrasing, its own. They are not part of ``families: all``: name them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from tiltyard_eval.generators.core import Draw, GeneratorError, Rng, family

GROUP = "reasoning-gym"

# Data set, title, and its settings by level.
_DATA_SETS: tuple[tuple[str, str, tuple[Mapping[str, Any], ...]], ...] = (
    (
        "chain_sum",
        "Chain of sums",
        tuple(
            {"min_terms": terms, "max_terms": terms, "min_digits": 1, "max_digits": digits}
            for terms, digits in ((2, 1), (2, 2), (3, 2), (4, 2), (4, 3))
        ),
    ),
    (
        "basic_arithmetic",
        "Basic arithmetic",
        tuple(
            {"min_terms": 2, "max_terms": terms, "max_digits": digits, "operators": ["+", "-"], "allow_negation": False}
            for terms, digits in ((2, 1), (2, 2), (3, 2), (4, 2), (5, 3))
        ),
    ),
    (
        "products",
        "Products",
        tuple({"min_digits": 1, "max_digits": 1 + level // 2, "max_terms": 2} for level in range(5)),
    ),
    ("gcd", "Greatest common divisor", tuple({"max_value": value} for value in (10, 20, 50, 100, 500))),
    ("lcm", "Least common multiple", tuple({"max_value": value} for value in (6, 9, 12, 20, 50))),
    ("count_bits", "Counting bits", tuple({"max_n": value} for value in (7, 15, 31, 127, 1023))),
    (
        "simple_equations",
        "Simple equations",
        tuple(
            {
                "min_terms": 2,
                "max_terms": 2,
                "max_value": value,
                "operators": ["+", "-"],
                "operators_weights": [0.5, 0.5],
            }
            for value in (9, 15, 20, 50, 100)
        ),
    ),
    (
        "fraction_simplification",
        "Simplifying fractions",
        tuple({"max_value": value, "max_factor": value, "styles": ["plain"]} for value in (5, 7, 9, 15, 30)),
    ),
    ("count_primes", "Counting primes", tuple({"max_n": value} for value in (10, 20, 50, 100, 200))),
    (
        "spell_backward",
        "Spelling backward",
        tuple({"min_word_len": length, "max_word_len": length} for length in (3, 4, 5, 6, 8)),
    ),
    (
        "leg_counting",
        "Counting legs",
        tuple(
            {"min_animals": animals, "max_animals": animals, "max_instances": instances}
            for animals, instances in ((1, 3), (1, 9), (2, 5), (2, 9), (3, 9))
        ),
    ),
)


@cache
def _data_set(name: str, level: int) -> Any:
    """A data set of 2**31 - 1 entries that are made when asked for."""
    try:
        import reasoning_gym  # noqa: PLC0415  optional, and slow to import
    except ImportError as error:
        raise GeneratorError(
            f"family 'gym_{name}' needs reasoning-gym; install it with: pip install 'tiltyard[suites]'"
        ) from error
    settings = {entry[0]: entry[2] for entry in _DATA_SETS}[name][level - 1]
    return reasoning_gym.create_dataset(name, seed=0, size=2**31 - 1, **settings)


def _register(name: str, title: str) -> None:
    @family(f"gym_{name}", title=title, group=GROUP, phrasings=("{question}",))
    def draw(rng: Rng, level: int) -> Draw:
        entry = _data_set(name, level)[rng.below(2**31 - 1)]
        return {"question": " ".join(entry["question"].split())}, " ".join(str(entry["answer"]).split())


for _name, _title, _ in _DATA_SETS:
    _register(_name, _title)
