"""What holds for every generator: determinism, lengths, surfaces, and clear refusals."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tiltyard_eval.generators import (
    FRAMES,
    LEVELS,
    REGISTRY,
    Family,
    GeneratorError,
    Item,
    Rng,
    get_family,
)
from tiltyard_eval.generators.gym import GROUP as GYM_GROUP

OWN = [fam for fam in REGISTRY.values() if fam.group != GYM_GROUP]
GYM = [fam for fam in REGISTRY.values() if fam.group == GYM_GROUP]

# Changing one of these changes every suite and training set made so far: raise the suites' versions with it.
GOLDEN = {
    "addition": "81e05fa9f86246c13b9559e608ae12c88613705aa37341ded10b0c286c66d047",
    "sort_words": "25c5d56b0e0130ea5493e1ea56027fe15b52a7a84a02a9e2c2d51fd5d762a7b9",
    "reverse_word": "4c0d1ef1aec057344a321a68592c40f30f557360845bdb8237b3a2030ebcfe82",
    "boolean": "ed88bc8c825e0ca321e6530bf78a88065585f8758b4ffdaaddb3ab851fd6ed41",
    "expand_brackets": "abe921b9d90d50a1073cac20524e0bc1f586dac17aa88bfe734b13684b988ff0",
    "code_list": "83391c8cd7cc2f76647d253a22dc7a8d3bfd4545443b7df716a2350a71eeccc3",
    "grid_path": "25d476e571951d442bc1b9d46a465119936e67faba0afadcc308ee880e50fdd5",
    "order_tasks": "b61a61914c498c40acc2320cdabba5333ba9db93d1ed2f47ad6d7ecea091047a",
    "read_places": "bcf6f1110cccf96d71cba816391730fd40a3ee3273e8c364d891c86eb70f711f",
    "truth_tellers": "38b0cbd1b19e0b10644c769b6d38187f6817fde4ee46e1af5711626af2526468",
    "write_line": "eb37548f4a11f14cb5a290ffcb5a1d12b0d4c5d87b1d85bb9feb40699ca979e0",
    "possession": "76e9eb4874c5894d08daaf2dcc2d68ce14eb90c5809914fe279fd5ef77c2a6ac",
}


def _digest(items: list[Item]) -> str:
    return hashlib.sha256("".join(item.to_json() + "\n" for item in items).encode()).hexdigest()


def _some(fam: Family, count: int = 60) -> list[Item]:
    return [item for level in LEVELS for item in fam.items(level, count, level)]


def test_there_are_many_families_of_every_kind_and_five_levels() -> None:
    assert len(OWN) >= 40
    assert len(GYM) >= 8
    assert LEVELS == (1, 2, 3, 4, 5)
    groups = Counter(fam.group for fam in OWN)
    kinds = ("arithmetic", "algebra", "logic", "counting", "strings", "grids", "graphs", "code reading")
    assert min(groups[kind] for kind in (*kinds, "reading comprehension", "instruction following")) >= 4


@pytest.mark.parametrize("fam", REGISTRY.values(), ids=lambda fam: fam.name)
def test_same_seed_gives_same_bytes_and_another_seed_others(fam: Family) -> None:
    first = fam.items(11, 50, 3)
    assert _digest(first) == _digest(fam.items(11, 50, 3))
    assert _digest(first) != _digest(fam.items(12, 50, 3))


@pytest.mark.parametrize(("name", "digest"), GOLDEN.items())
def test_bytes_have_not_changed_since_they_were_recorded(name: str, digest: str) -> None:
    assert _digest(_some(get_family(name))) == digest


@pytest.mark.parametrize("fam", REGISTRY.values(), ids=lambda fam: fam.name)
def test_items_keep_the_form_that_servers_are_asked_in(fam: Family) -> None:
    for item in _some(fam):
        assert 0 < len(item.prompt) <= fam.max_prompt_chars
        assert item.prompt.endswith((":",))
        assert item.prompt.isascii()
        assert 0 < len(item.answer) <= fam.max_answer_chars
        assert item.answer == item.answer.strip()
        assert "\n" not in item.answer
        assert "{" not in item.prompt
        assert json.loads(item.to_json()) == {
            "prompt": item.prompt,
            "answer": item.answer,
            "task": fam.name,
            "level": item.level,
        }


@pytest.mark.parametrize("fam", OWN, ids=lambda fam: fam.name)
def test_phrasings_are_several_and_each_shows_the_same_content(fam: Family) -> None:
    assert len(fam.phrasings) >= 4
    fields, _ = fam.draw(Rng(5), 3)
    for phrasing in fam.phrasings.values():
        named = set(re.findall(r"\{(\w+)\}", phrasing))
        assert named <= set(fields)
        # A field that a phrasing leaves out must be one that another one stands for (the ordinal of a position).
        # The checks are for the scorer: what they demand stands in another field, in words.
        assert len(set(fields) - named - {"checks"}) <= (1 if fam.name in {"item_at", "story"} else 0)


def test_surfaces_are_those_asked_for() -> None:
    items = get_family("addition").items(1, 40, 2, frames=["chat"], phrasings=["b"])
    assert all(re.fullmatch(r"User: Add \d+ and \d+\.\nAssistant:", item.prompt) for item in items)
    frames = {item.prompt.split(":")[0] for item in get_family("addition").items(1, 200, 2, phrasings=["b"])}
    assert {"Q", "Instruction", "User", "Problem"} <= frames


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 6}, "level 6"),
        ({"level": 2, "frames": ["poem"]}, "no frame 'poem'"),
        ({"level": 2, "phrasings": ["z"]}, "no phrasing 'z'"),
    ],
)
def test_what_does_not_exist_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(GeneratorError, match=message):
        get_family("addition").items(1, 1, **arguments)
    with pytest.raises(GeneratorError, match="no family 'cooking'"):
        get_family("cooking")


def test_no_data_set_that_failed_the_screen_is_wrapped() -> None:
    """Not deterministic, wrong about their own answers, raising, or paying for junk, with reasoning-gym 0.1.25."""
    failed = {"list_functions", "boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
    failed |= {"prime_factorization", "game_of_life_halting", "letter_counting"}
    assert failed.isdisjoint({fam.name.removeprefix("gym_") for fam in GYM})


@pytest.mark.parametrize("fam", GYM, ids=lambda fam: fam.name)
def test_reasoning_gym_gives_its_own_answer_full_marks(fam: Family) -> None:
    from tiltyard_eval.generators.gym import _data_set  # noqa: PLC0415

    name = fam.name.removeprefix("gym_")
    for level in LEVELS:
        data = _data_set(name, level)
        for index in range(20):
            entry = data[index]
            assert data.score_answer(" ".join(str(entry["answer"]).split()), entry) == 1.0
            assert data[index] == entry


def test_rng_draws_what_python_promises_to_keep() -> None:
    rng = Rng(2024)
    assert [rng.below(100) for _ in range(6)] == [47, 72, 30, 88, 41, 71]
    assert rng.sample("abcdef", 3) == ["b", "c", "f"]
    assert sorted(rng.shuffled(range(10))) == list(range(10))
    assert all(rng.weighted([1.0, 1.0, 3.0]) != 1 for _ in range(200))


def test_every_frame_ends_where_the_answer_begins() -> None:
    for frame in FRAMES.values():
        assert frame.count("{question}") == 1
        assert frame.endswith(":")


def test_the_reference_lists_every_family_and_frame() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "suites.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, flags=re.MULTILINE)
    listed = {name: group.strip() for name, group in rows}
    assert {name: listed.get(name) for name in REGISTRY} == {name: fam.group for name, fam in REGISTRY.items()}
    assert set(FRAMES) <= set(listed)
