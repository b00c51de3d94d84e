"""Reading what the evaluator's container left: trusted by nobody, checked line by line."""

import json
from typing import Any

import pytest

from tiltyard.competitions.models import Suite
from tiltyard.evaluation.samples import SamplesError, parse_samples
from tiltyard.evaluation.suites import ProgressReader, evaluator_command
from tiltyard.worker.progress import suite_progress
from tiltyard_eval.results import Result, load_result
from tiltyard_sandbox.limits import Limits

TASKS = [("addition", [1.0, 0.0]), ("words", [1.0])]


def result() -> Result:
    tasks = [
        {
            "name": name,
            "title": name,
            "family": name,
            "weight": 1.0,
            "items": len(scores),
            "score": sum(scores) / len(scores),
            "low": 0.0,
            "high": 1.0,
            "format_failures": 0,
            "item_failures": {},
        }
        for name, scores in TASKS
    ]
    document = {
        "schema": "tiltyard.result/1",
        "status": "scored",
        "failure": None,
        "suite": {"name": "s", "title": "S", "version": "1", "visibility": "open", "sha256": "sha256:0"},
        "score": {"value": 0.75, "low": 0.5, "high": 1.0},
        "tasks": tasks,
        "adapter": "openai",
        "execution_mode": "serial",
        "settings": {},
        "versions": {},
        "timing": {
            "started_at": "2026-01-01T00:00:00+00:00",
            "wall_s": 1.0,
            "requests": 3,
            "retries": 0,
            "latency_p50_s": None,
            "latency_p95_s": None,
        },
        "identity": {},
        "repro_hash": "sha256:0",
    }
    return load_result(json.dumps(document).encode())


def rows() -> list[dict[str, Any]]:
    return [
        {"task": name, "index": index, "prompt": "p", "answer": "a", "expected": "e", "score": score, "failure": None}
        for name, scores in TASKS
        for index, score in enumerate(scores)
    ]


def lines(samples: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(sample) for sample in samples).encode()


def test_samples_come_in_the_order_of_tasks_and_items() -> None:
    parsed = parse_samples(lines(rows()[::-1]), result())
    assert [(row.task, row.index, row.score) for row in parsed] == [
        ("addition", 0, 1),
        ("addition", 1, 0),
        ("words", 0, 1),
    ]


def test_long_and_odd_texts_become_storable() -> None:
    samples = rows()
    samples[0] |= {"answer": "x" * 30_000, "expected": "a\x00b\ud800"}
    row = parse_samples(lines(samples), result())[0]
    assert len(row.answer) == 20_001
    assert row.expected == "a\ufffdb?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "other"}, "belongs to no task"),
        ({"index": 1}, "task addition has 2 items but 2 samples"),
        ({"index": -1}, "line 1: index is not a count"),
        ({"index": True}, "line 1: index is not a count"),
        ({"score": 0.5}, "the samples of task addition do not give its score"),
        ({"score": 2}, "line 1: score is not in 0..1"),
        ({"score": float("nan")}, "line 1: score is not in 0..1"),
        ({"score": True}, "line 1: score is not in 0..1"),
        ({"failure": 3}, "line 1: failure is not a text"),
        ({"answer": None}, "line 1: answer is not a text"),
    ],
)
def test_a_wrong_line_is_refused(change: dict[str, Any], message: str) -> None:
    samples = rows()
    samples[0] |= change
    with pytest.raises(SamplesError, match=message):
        parse_samples(lines(samples), result())


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe"])
def test_rubbish_is_refused(content: bytes) -> None:
    with pytest.raises(SamplesError):
        parse_samples(content, result())


def test_progress_lines_become_calls() -> None:
    calls: list[tuple[str, int, int]] = []
    reader = ProgressReader(lambda *call: calls.append(call))
    for line in (
        '{"event":"stage","stage":"asking"}',
        '{"event":"progress","done":3,"total":9}',
        '{"event":"stage","stage":"scoring"}',
    ):
        reader.feed(line)
    assert calls == [("asking", 0, 0), ("asking", 3, 9), ("scoring", 3, 9)]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no JSON",
        "[1]",
        '{"event":"stage","stage":"<script>"}',
        '{"event":"progress","done":10,"total":9}',
        '{"event":"progress","done":-1,"total":9}',
        '{"event":"progress","done":"3","total":9}',
        '{"event":"progress","done":3,"total":9, "padding": "' + "x" * 5000 + '"}',
        "[" * 4000,
    ],
)
def test_other_lines_are_ignored(line: str) -> None:
    calls: list[tuple[str, int, int]] = []
    ProgressReader(lambda *call: calls.append(call)).feed(line)
    assert calls == []


def test_the_time_limit_of_the_evaluation_does_not_grow_by_the_time_to_start() -> None:
    command = evaluator_command(Limits(start_s=120, evaluate_s=300), "openai", 5, "sha256:0")
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert (options["--deadline"], options["--start-timeout"]) == ("300", "120")


@pytest.mark.parametrize(("visibility", "told"), [("open", [0, 4, 9]), ("hidden", [])])
def test_progress_of_a_hidden_suite_is_not_told(visibility: str, told: list[int]) -> None:
    """A server could spell a hidden question in the times at which the count of done questions grows."""
    calls: list[int] = []
    on_progress = suite_progress(Suite(visibility=visibility, tasks=[{"items": 9}]), calls.append)
    for done in (0, 3, 6):
        on_progress("asking", done, 6)
    assert calls == told
