"""Reading result.json: what is valid comes back whole, what is not is refused with the place named."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eval_results import example_result

from tiltyard_eval.files import write_json
from tiltyard_eval.latency import EDGES_S, histogram, latency_fields, percentile
from tiltyard_eval.results import MAX_RESULT_BYTES, ResultError, Timing, load_result


def valid() -> dict[str, Any]:
    return json.loads(json.dumps(example_result().to_json()))  # type: ignore[no-any-return]


def test_written_result_reads_back_equal(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", example_result().to_json())
    assert load_result(tmp_path / "result.json") == example_result()
    assert load_result((tmp_path / "result.json").read_bytes()) == example_result()


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("schema", value="tiltyard.result/2"), "schema"),
        (put("status", value="fine"), "status is not one of"),
        (put("status", value=["scored"]), "status is not one of"),
        (put("score", value=None), "a scored result has"),
        (put("score", "value", value=1.5), "score.value is out of range"),
        (put("score", "value", value=True), "score.value is not a finite number"),
        (put("score", "low", value=0.7), "outside its interval"),
        (put("score", "extra", value=1), "unknown field"),
        (put("extra", value=1), "unknown field"),
        (put("tasks", value={}), "tasks is not a list"),
        (put("tasks", 0, "items", value=-1), "tasks[0].items is not a count"),
        (put("tasks", 0, "items", value=1), "more failures than items"),
        (put("tasks", 0, "title", value="x" * 30_000), "tasks[0].title is not a text"),
        (put("tasks", 0, "item_failures", value={"a": "b"}), "tasks[0].item_failures is not a count"),
        (put("failure", value={"reason": "crashed", "message": ""}), "a scored result has"),
        (put("suite", "visibility", value="secret"), "suite.visibility"),
        (put("timing", "wall_s", value=-1), "timing.wall_s is out of range"),
        (put("timing", "latency_p99_s", value="1"), "timing.latency_p99_s is not a finite number"),
        (put("timing", "latency_histogram", "counts", value=[1]), "one more than counts"),
        (put("timing", "latency_histogram", "counts", 0, value=-1), "timing.latency_histogram.counts is not a count"),
        (put("timing", "latency_histogram", "edges_s", 1, value=0.0), "ascending edges_s"),
        (put("timing", "latency_histogram", "counts", value=[0] * 101), "at most 100 entries"),
        (put("repro_hash", value="md5:1"), "repro_hash"),
    ],
)
def test_wrong_field_is_refused_by_name(change: Callable[[dict[str, Any]], None], message: str) -> None:
    document = valid()
    change(document)
    with pytest.raises(ResultError) as error:
        load_result(json.dumps(document).encode())
    assert message in str(error.value)


def test_result_of_before_there_was_a_histogram_can_be_read() -> None:
    document = valid()
    kept = ("started_at", "wall_s", "requests", "retries", "latency_p50_s", "latency_p95_s")
    document["timing"] = {name: document["timing"][name] for name in kept}
    timing = load_result(json.dumps(document).encode()).timing
    assert timing == Timing("2026-01-01T00:00:00+00:00", 1.5, 4, 0, 0.1, 0.185)


def test_every_latency_is_counted_once_at_its_place() -> None:
    counts = histogram([0.0, 0.0005, 0.001, 0.05, 0.099999, 0.1, 999.0, 1000.0, 99999.0]).counts
    assert len(counts) == len(EDGES_S) - 1
    assert {EDGES_S[place]: count for place, count in enumerate(counts) if count} == {
        **{0.0: 2, 0.001: 1, 0.05: 2, 0.1: 1},
        500.0: 3,
    }


def test_percentiles_are_none_without_requests() -> None:
    assert percentile([], 0.5) is None
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0
    fields = latency_fields([])
    assert {fields[f"latency_{name}_s"] for name in ("p50", "p90", "p95", "p99", "max")} == {None}
    assert not any(fields["latency_histogram"].counts)
    fields = latency_fields([n / 100 for n in range(101)])
    assert [fields[f"latency_{name}_s"] for name in ("p50", "p90", "p95", "p99", "max")] == [0.5, 0.9, 0.95, 0.99, 1.0]


@pytest.mark.parametrize("name", sorted(valid()))
def test_missing_field_is_refused(name: str) -> None:
    document = valid()
    del document[name]
    with pytest.raises(ResultError, match=f"lacks {name}"):
        load_result(json.dumps(document).encode())


def test_two_tasks_of_one_name_are_refused() -> None:
    document = valid()
    document["tasks"].append(copy.deepcopy(document["tasks"][0]))
    with pytest.raises(ResultError, match="same name"):
        load_result(json.dumps(document).encode())


def test_failed_result_needs_a_known_reason_and_no_score() -> None:
    document = {**valid(), "status": "failed", "score": None, "tasks": []}
    document["failure"] = {"reason": "crashed", "message": "gone"}
    assert load_result(json.dumps(document).encode()).status == "failed"
    document["failure"]["reason"] = "bad luck"
    with pytest.raises(ResultError, match=r"failure\.reason"):
        load_result(json.dumps(document).encode())


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"\xff", b'{"schema": NaN}', b"[" * 100_000, b" " * (MAX_RESULT_BYTES + 1)]
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(ResultError):
        load_result(raw)
