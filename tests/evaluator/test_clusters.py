"""Items of one skeleton count as one cluster: in a run's intervals, in its samples, and never on the wire."""

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from tiltyard_eval.build import build_suite, load_recipe
from tiltyard_eval.config import RunConfig, RunFacts
from tiltyard_eval.harness import evaluate_suite
from tiltyard_eval.outcome import scored_result
from tiltyard_eval.questions import Answer, AnyQuestion, Question
from tiltyard_eval.results import Result
from tiltyard_eval.suite import Suite, lock_suite

SECRET = b"sixteen bytes or more"
# Seven days and at most three numbers of days: 60 questions on 20 surfaces ask the same few things again and again.
RECIPE = """
name: weekdays
title: Weekdays
version: "1"
visibility: open
description: For tests.
items: 60
levels: [1]
tasks:
  - {family: weekday}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return build_suite(load_recipe(tmp_path / "recipe.yaml"), SECRET, tmp_path / "suite")


def result_of(suite: Suite, right: AbstractSet[str]) -> tuple[Result, list[str]]:
    """The run of an entry that knows these answers, and every text that it was asked."""
    gold = {item.prompt: item for task in suite.tasks for item in task.items}
    asked: list[str] = []

    def ask(questions: Sequence[AnyQuestion]) -> Mapping[str, Answer]:
        prompts = {question.key: question.prompt for question in questions if isinstance(question, Question)}
        asked.extend(prompts.values())
        return {
            key: Answer(f" {gold[prompt].answer}" if gold[prompt].answer in right else " no", None, 0.0)
            for key, prompt in prompts.items()
        }

    config = RunConfig(url="http://127.0.0.1:1", adapter="openai", suite=str(suite.root))
    return scored_result(config, suite, evaluate_suite(suite, ask), RunFacts()), asked


def without_skeletons(suite: Suite) -> Suite:
    for path in (suite.root / "data").iterdir():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            del line["skeleton"]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lock_suite(suite.root)


def test_an_interval_is_wider_where_items_share_a_skeleton(suite: Suite) -> None:
    clusters = suite.tasks[0].clusters()
    assert clusters is not None
    assert len(set(clusters)) < 20 < len(clusters)
    known = {"Monday", "Tuesday", "Wednesday"}
    clustered, _ = result_of(suite, known)
    plain, _ = result_of(without_skeletons(suite), known)
    assert clustered.score is not None
    assert plain.score is not None
    assert clustered.score.value == plain.score.value
    assert 0.2 < clustered.score.value < 0.8
    widths = [one.score.high - one.score.low for one in (clustered, plain) if one.score]
    assert widths[0] > 1.4 * widths[1]
    assert clustered.tasks[0].low < plain.tasks[0].low
    assert clustered.tasks[0].high > plain.tasks[0].high


def test_items_carry_cluster_and_twin_of_the_data(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "hidden.yaml").write_text(
        RECIPE.replace("open", "hidden").replace("weekdays", "hidden-days").replace("levels: [1]", "levels: [4]")
        + "twins: {of: forty, share: 0.2}\n"
    )
    (tmp_path / "open.yaml").write_text(
        RECIPE.replace("weekdays", "forty").replace("levels: [1]", "levels: [4]").replace("items: 60", "items: 20")
    )
    opened = build_suite(load_recipe(tmp_path / "open.yaml"), SECRET, tmp_path / "open")
    hidden = build_suite(load_recipe(tmp_path / "hidden.yaml"), SECRET, tmp_path / "hidden", opened=opened)
    gold = {item.prompt: item for item in hidden.tasks[0].items}
    evaluation = evaluate_suite(hidden, lambda questions: {one.key: Answer(" x", None, 0.0) for one in questions})
    twins = [item.twin for item in evaluation.items if item.twin is not None]
    assert len(twins) == 12
    for item in evaluation.items:
        assert item.cluster == gold[item.prompt].cluster
        link = gold[item.prompt].twin
        assert item.twin == (None if link is None else {"task": link[0], "index": link[1]})


def test_a_server_is_asked_the_prompt_and_nothing_else(suite: Suite) -> None:
    _, asked = result_of(suite, set())
    assert sorted(asked) == sorted(item.prompt for item in suite.tasks[0].items)
