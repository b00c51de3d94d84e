"""Questions with more than one right answer: what each check means, and how a suite's checks are read and scored."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from tiltyard_eval.build import build_suite, load_recipe
from tiltyard_eval.build_twins import check_twins
from tiltyard_eval.checks import CHECKS, MAX_CHECKS, Check, CheckError, fulfils, parse_checks
from tiltyard_eval.harness import evaluate_suite
from tiltyard_eval.questions import Answer, AnyQuestion, Question
from tiltyard_eval.suite import Suite, SuiteError, load_suite, lock_suite

SECRET = b"sixteen bytes or more"
OPEN = """
name: choices-open
title: Choices
version: "1"
visibility: open
description: For tests.
items: 12
max_gen_toks: 64
frames: [qa, plain]
phrasings: [a, b]
levels: [3, 4]
tasks:
  - {family: name_words}
  - {family: wanted_number}
  - {family: addition}
"""
HIDDEN = OPEN.replace("choices-open", "choices-hidden").replace("visibility: open", "visibility: hidden")
HIDDEN = HIDDEN.replace("frames: [qa, plain]\nphrasings: [a, b]", "frames: [chat, problem]\nphrasings: [c, d]")
HIDDEN = HIDDEN.replace("items: 12", "items: 12\ntwins: {of: choices-open, share: 0.25}")

# Of each check: its value, answers that fulfil it, and answers that do not.
CASES: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "words": (
        "3",
        ["a b c", "one, two; three."],
        ["a b", "a b c d", "", "lamp . .", "a b .", "- - -", "one, two ...", "a b c ."],
    ),
    "letters": ("3", ["bat BALL", "egg."], ["ball ab", "bat 123", "бал бот бит", "bat ,"]),
    "different": ("words", ["bat ball", ""], ["bat bat", "bat Bat.", "a b a"]),
    "begin": ("b", ["bat Ball, (bee)"], ["bat cat", "", "bat ,"]),
    "contain": ("lamp", ["a Lamp, there", "lamp"], ["lamps", "clamp", "la mp", ""]),
    "first": ("lamp", ["lamp on", "Lamp!"], ["on lamp", "lamps on", ""]),
    "last": ("lamp", ["on lamp", "the LAMP."], ["lamp on", ""]),
    "without": ("e", ["bat", ""], ["bee", "BEE"]),
    "among": ("bat ball bee", ["bee bat", "Ball."], ["bee cat", "bat ,"]),
    "case": ("upper", ["BAT BALL", "BAT, 2"], ["Bat", "bat", "12", "ÄB"]),
    "at_least": ("10", ["10", "11", "999999999999999"], ["9", "-11", "ten", "10.5", "1e9", "٣٣", "10 ", "9" * 4000]),
    "at_most": ("10", ["10", "-11"], ["11", "1 0", ""]),
    "multiple_of": ("7", ["49", "0", "-7"], ["50", "7.0"]),
    "digit_sum": ("10", ["55", "-19", "1009"], ["56", "5 5"]),
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_holds_for_what_it_says_and_for_nothing_else(name: str) -> None:
    value, right, wrong = CASES[name]
    (check,) = parse_checks([{"check": name, "value": value}])
    assert [answer for answer in right if not fulfils(answer, [check])] == []
    assert [answer for answer in wrong if fulfils(answer, [check])] == []


def test_all_checks_must_hold() -> None:
    checks = [Check("words", "2"), Check("begin", "b")]
    assert fulfils("bat bee", checks)
    assert not fulfils("bat", checks)
    assert not fulfils("bat cat", checks)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"check": "words", "value": "3"},
        ["words 3"],
        [{"check": "words"}],
        [{"check": "words", "value": "3", "weight": 1}],
        [{"check": "regex", "value": "(a+)+$"}],
        [{"check": ["words"], "value": "3"}],
        [{"check": "words", "value": 3}],
        [{"check": "words", "value": "0"}],
        [{"check": "words", "value": "3\n"}],
        [{"check": "words", "value": "٣"}],
        [{"check": "case", "value": "title"}],
        [{"check": "multiple_of", "value": "0"}],
        [{"check": "at_least", "value": "1" * 10}],
        [{"check": "among", "value": "a " * 200 + "a"}],
        [{"check": "words", "value": "3"}] * (MAX_CHECKS + 1),
    ],
)
def test_what_is_no_list_of_checks_is_refused(value: object) -> None:
    with pytest.raises(CheckError):
        parse_checks(value)


@pytest.fixture
def opened(tmp_path: Path) -> Suite:
    (tmp_path / "open.yaml").write_text(OPEN)
    return build_suite(load_recipe(tmp_path / "open.yaml"), SECRET, tmp_path / "open")


def scores(suite: Suite, given: Mapping[str, str]) -> dict[str, list[float]]:
    def ask(questions: Sequence[AnyQuestion]) -> Mapping[str, Answer]:
        return {one.key: Answer(given[one.prompt], None, 0.0) for one in questions if isinstance(one, Question)}

    found: dict[str, list[float]] = {task.name: [] for task in suite.tasks}
    for item in evaluate_suite(suite, ask).items:
        found[item.task].append(item.score)
    return found


def test_any_answer_that_fulfils_the_checks_counts_and_no_other(opened: Suite) -> None:
    names, numbers, sums = opened.tasks
    assert all(item.checks for item in (*names.items, *numbers.items))
    own = {item.prompt: f" {item.answer}\n" for task in opened.tasks for item in task.items}
    assert scores(opened, own) == {task.name: [1.0] * 12 for task in opened.tasks}
    other = dict(own)
    for item in names.items:
        other[item.prompt] = " " + " ".join(reversed(item.answer.split()))  # another order is as right
    for item in numbers.items:
        other[item.prompt] = f"the number {item.answer}"
    assert scores(opened, other) == {"name_words": [1.0] * 12, "wanted_number": [0.0] * 12, "addition": [1.0] * 12}
    assert scores(opened, dict.fromkeys(own, "")) == {task.name: [0.0] * 12 for task in opened.tasks}
    assert len(sums.items) == 12


def test_twins_are_checked_alike(tmp_path: Path, opened: Suite) -> None:
    (tmp_path / "hidden.yaml").write_text(HIDDEN)
    hidden = build_suite(load_recipe(tmp_path / "hidden.yaml"), SECRET, tmp_path / "hidden", opened=opened)
    check_twins(hidden, opened)
    twins = [item for item in hidden.tasks[0].items if item.twin]
    assert len(twins) == 3
    assert all(item.checks == opened.tasks[0].items[item.twin[1]].checks for item in twins if item.twin)
    path = hidden.root / "data" / "name_words.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["checks"] = line["checks"][:1]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SuiteError, match="is checked in another way than its twin"):
        check_twins(lock_suite(hidden.root), opened)


def _rewritten(suite: Suite, change: Mapping[str, object]) -> None:
    path = suite.root / "data" / "name_words.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    line = {**json.loads(first), **change}
    path.write_text(json.dumps({key: value for key, value in line.items() if value is not None}) + "\n" + "".join(rest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checks": None}, "every line has checks, and without it none"),
        ({"checks": [{"check": "shell", "value": "x"}]}, "line 1: checks: the checks there are: words, letters"),
        (
            {"checks": [{"check": "words", "value": "x"}]},
            "line 1: checks: the value of a check 'words' has another form",
        ),
        ({"checks": [{"check": "words", "value": "9"}]}, "line 1: checks: the line's own answer does not fulfil them"),
        ({"answer": "zoo"}, "line 1: checks: the line's own answer does not fulfil them"),
    ],
)
def test_checks_of_a_suite_are_read_as_hostile(opened: Suite, change: Mapping[str, object], message: str) -> None:
    _rewritten(opened, change)
    with pytest.raises(SuiteError) as error:
        lock_suite(opened.root)
    assert message in str(error.value)


def test_checks_and_metric_go_together(opened: Suite) -> None:
    path = opened.root / "tasks" / "name_words.yaml"
    config = yaml.safe_load(path.read_text())
    for change, message in (
        ({"metric": "exact_match"}, "every line has checks, and without it none"),
        ({"metric": "checks", "ignore_case": True}, "checks ignores neither"),
        ({"metric": "acc"}, "the metric must be exact_match or checks"),
    ):
        path.write_text(yaml.safe_dump({**config, "metric_list": [{**config["metric_list"][0], **change}]}))
        with pytest.raises(SuiteError, match=message):
            lock_suite(opened.root)
    path.write_text(yaml.safe_dump(config))
    assert load_suite(opened.root).sha256 == opened.sha256
