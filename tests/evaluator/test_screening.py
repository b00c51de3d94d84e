"""The screen admits every family of ours, and refuses each kind of broken one."""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tiltyard_eval.__main__ import main
from tiltyard_eval.checks import Check
from tiltyard_eval.generators import LEVELS, REGISTRY, Rng
from tiltyard_eval.generators.core import Draw, Family
from tiltyard_eval.generators.gym import GROUP as GYM_GROUP
from tiltyard_eval.screening import (
    ECHO,
    JUNK,
    MAX_BEST_GUESS,
    NO_DIGEST,
    SCREEN_ITEMS,
    best_guess,
    digests_in_other_process,
    draw,
    screen_family,
)

OWN = [name for name, fam in REGISTRY.items() if fam.group != GYM_GROUP]
ITEMS = 60  # of each family, so that each kind of junk comes up: the thousand of an admission take minutes
CALLS = itertools.count()


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    return digests_in_other_process(OWN, ITEMS)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_own_families_pass(name: str, digests: dict[str, str]) -> None:
    found = screen_family(REGISTRY[name], items=ITEMS, other_process_digest=digests[name])
    assert found.faults == ()


def plain(rng: Rng, level: int) -> Draw:
    n = rng.between(0, 10**6 * level)
    return {"n": n}, f"v{n}"


def drifting(rng: Rng, level: int) -> Draw:
    n = rng.between(0, 10**6) + next(CALLS)
    return {"n": n}, f"v{n}"


def raising(rng: Rng, level: int) -> Draw:
    raise ZeroDivisionError("level divides nothing")


def two_minded(rng: Rng, level: int) -> Draw:
    return {"n": rng.between(0, 3)}, f"v{rng.between(0, 9**9)}"


def unanswerable(rng: Rng, level: int) -> Draw:
    return {"n": rng.between(0, 10**9)}, "  "


def punctuated(rng: Rng, level: int) -> Draw:
    return {"n": rng.between(0, 10**9)}, "v1\rv2"


def constant(rng: Rng, level: int) -> Draw:
    n = rng.between(0, 10**9)
    return {"n": n}, "once" if level == 4 and rng.chance(0.7) else f"v{n}"


def cheap(rng: Rng, level: int) -> Draw:
    return {"n": rng.between(0, 10**9)}, "None"


def seldom_cheap(rng: Rng, level: int) -> Draw:
    """Junk is right to questions of one level alone, whatever junk lm-eval is asked to score there."""
    n = rng.between(0, 10**9)
    return {"n": n}, "None" if level == 5 else f"v{n}"


def choosing(rng: Rng, level: int) -> Draw:
    """Of which one answer, not among the most frequent, fulfils most."""
    bound = rng.between(1, 10**6)
    return {"n": bound}, str(bound)


def _between(fields: Mapping[str, str]) -> tuple[Check, ...]:
    return Check("at_least", fields["n"]), Check("at_most", "1000000")


def broken(draw: object) -> Family:
    return Family("broken", "Broken", "tests", {"a": "Number {n}?"}, draw)  # type: ignore[arg-type]


def test_a_sound_family_passes() -> None:
    found = screen_family(broken(plain), items=60)
    assert (found.faults, found.different) == ((), 60)


@pytest.mark.parametrize(
    ("draw", "fault"),
    [
        (drifting, "not deterministic"),
        (raising, "raises ZeroDivisionError: level divides nothing"),
        (two_minded, "ambiguous"),
        (unanswerable, "no suite takes its questions"),
        (punctuated, "its own answer scores 0"),
        (cheap, "pays for junk"),
    ],
)
def test_a_broken_family_is_refused(draw: object, fault: str) -> None:
    items = 5 * (len(JUNK) + 1)
    assert any(found.startswith(fault) for found in screen_family(broken(draw), items=items).faults)


def test_a_family_with_a_level_that_can_be_guessed_is_refused() -> None:
    found = screen_family(broken(constant))
    assert len(found.faults) == 1
    assert "% of level 4, more than 60%" in found.faults[0]
    assert 0.6 < found.best_guess == found.best_guesses[3]
    assert max(found.best_guesses[:3]) < 0.02


def test_an_answer_that_fulfils_most_checks_is_a_guess() -> None:
    """Every question has another gold answer, and yet the largest of them is right everywhere."""
    family = replace(broken(choosing), checks=_between)
    found = screen_family(family)
    assert found.best_guess == 1.0
    assert "one constant answer gets 100% of level 1" in found.faults[0]


def test_an_answer_that_junk_fulfils_is_paid_for() -> None:
    family = replace(broken(choosing), checks=lambda fields: (Check("at_least", fields["n"]),))
    assert any(fault.startswith("pays for junk") for fault in screen_family(family, items=300).faults)


def test_all_junk_is_held_against_every_question() -> None:
    assert JUNK.index("None") not in {index % (len(JUNK) + 1) for index in range(48, 60)}  # those of level 5
    assert [fault[:13] for fault in screen_family(broken(seldom_cheap), items=60).faults] == ["pays for junk"]


def test_one_word_and_full_stops_are_junk() -> None:
    """Each question wants a word of its own somewhere, and no other check asks for more."""

    def loose(rng: Rng, level: int) -> Draw:
        word = "".join("abcdefghij"[rng.below(10)] for _ in range(9))
        return {"n": word}, f"{word[::-1]} b c d"

    family = replace(broken(loose), checks=lambda fields: (Check("contain", fields["n"][::-1]),))
    (fault,) = screen_family(family, items=60).faults
    assert fault.startswith("pays for junk")
    assert fault.endswith(" . . .'")


@pytest.mark.parametrize("name", REGISTRY)
def test_no_level_of_a_built_in_family_can_be_guessed(name: str) -> None:
    drawn = draw(REGISTRY[name], SCREEN_ITEMS)
    assert max(best_guess([item for item in drawn if item.level == level]) for level in LEVELS) <= MAX_BEST_GUESS


def test_the_sample_holds_all_junk_and_there_are_enough_families() -> None:
    assert len(JUNK) + 1 <= ITEMS
    assert len(REGISTRY) >= 40
    assert len(OWN) >= 10


def test_another_process_must_agree() -> None:
    assert "in another process" in screen_family(broken(plain), items=60, other_process_digest="0" * 64).faults[0]


def test_the_question_itself_is_junk() -> None:
    def parrot(rng: Rng, level: int) -> Draw:
        n = rng.between(0, 10**9)
        return {"n": n}, f"Q: {n}"

    family = Family("parrot", "Parrot", "tests", {"a": "{n}"}, parrot)
    assert ECHO not in JUNK
    assert any("pays" in fault for fault in screen_family(family, items=300).faults)


def test_raising_in_the_other_process_alone_is_a_fault() -> None:
    assert (
        "raises in another process" in screen_family(broken(plain), items=60, other_process_digest=NO_DIGEST).faults[0]
    )


@pytest.mark.parametrize("items", ["-1", "4", "20001"])
def test_a_screen_of_no_size_is_refused_at_once(items: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite", "screen", "parity", "--items", items]) == 2
    assert "--items must be from 5 to 20000" in capsys.readouterr().err
