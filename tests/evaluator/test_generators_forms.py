"""Answers are scored by their exact text, so every phrasing says which form is wanted where several would be right."""

import re

import pytest

from tiltyard_eval.generators import LEVELS, REGISTRY, Rng

NUMBER, WORD, SPACES = r"(only the|a) number( alone)?|the value|Give the number", r"\b(one|a) word\b", r"\bspaces?\b"
FORMS = {
    "linear_equation": r"the number|What is|Which value",
    "two_unknowns": r"number|What is|Give \{letter\}|find \{letter\}",
    "expand_brackets": r"like 5x\^2 - x \+ 2",
    "grid_walk": SPACES,
    "order_tasks": SPACES,
    "follow_steps": SPACES,
    "name_words": SPACES,
    "choose_words": SPACES,
    "wanted_number": r"\bdigits\b|Digits",
    "read_profiles": WORD,
    "read_places": WORD,
    "read_order": WORD,
    "read_amounts": NUMBER,
    "count_groups": r"[Ss]omeone without a (friend|link) (is|counts as) a \w+ alone",
}
EXAMPLE = "5x^2 - x + 2"


@pytest.mark.parametrize("name", FORMS)
def test_every_phrasing_says_the_form(name: str) -> None:
    phrasings = REGISTRY[name].phrasings.values()
    assert [phrasing for phrasing in phrasings if not re.search(FORMS[name], phrasing)] == []


def test_demands_of_a_format_say_what_brackets_hold_and_that_there_are_no_spaces() -> None:
    rng = Rng(7)
    for level in LEVELS:
        for _ in range(60):
            fields, answer = REGISTRY["follow_format"].draw(rng, level)
            assert "without spaces" in str(fields["format"])
            assert (answer[0] in "([") == ("all together in one pair of" in str(fields["format"]))


def test_the_example_of_a_form_is_never_the_answer() -> None:
    rng = Rng(7)
    assert all(REGISTRY["expand_brackets"].draw(rng, level)[1] != EXAMPLE for level in LEVELS for _ in range(2000))


def test_a_word_written_twice_is_asked_for_with_a_space() -> None:
    rng = Rng(7)
    drawn = [str(REGISTRY["follow_condition"].draw(rng, 4)[0]["rules"]) for _ in range(100)]
    assert any("twice" in rules for rules in drawn)
    assert all(rules.count("twice") == rules.count("twice with a space between") for rules in drawn)
