"""Reading and writing `result.json` (schema `tiltyard.result/1`). Standard library only.

The platform reads results with `load_result`: every field is checked, because a result file is the one thing that
crosses from the evaluator's container to the worker.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tiltyard_eval.errors import REASONS

SCHEMA: Final = "tiltyard.result/1"
MAX_RESULT_BYTES: Final = 8 * 1024 * 1024
MAX_TEXT_CHARS: Final = 20_000
MAX_TASKS: Final = 10_000
MAX_EDGES: Final = 100


class ResultError(ValueError):
    """The document is not a `tiltyard.result/1`; the message says where."""


@dataclass(frozen=True)
class Failure:
    reason: str
    message: str


@dataclass(frozen=True)
class SuiteRef:
    name: str
    title: str
    version: str
    visibility: str
    sha256: str


@dataclass(frozen=True)
class Score:
    """A value with its 95 % interval, all in 0..1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskResult:
    """One task: mean item score with interval, and what went wrong, by kind.

    `ties` counts the items whose score differs from lm-eval's, because several choices had the highest log-likelihood
    and share the credit. `metrics` are lm-eval's own, by `metric,filter`; none when an answer was faulty.
    """

    name: str
    title: str
    family: str
    weight: float
    items: int
    score: float
    low: float
    high: float
    format_failures: int
    item_failures: Mapping[str, int]
    ties: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LatencyHistogram:
    """Requests by how long they took: `counts[i]` of them at least `edges_s[i]` and less than `edges_s[i + 1]` seconds.

    The last count also holds what took longer than the last edge.
    """

    edges_s: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Timing:
    """Wall-clock facts; everything here stands outside the reproducible identity.

    Latencies are those of answered requests, in seconds; None without any. The first results have fewer of them.
    """

    started_at: str
    wall_s: float
    requests: int
    retries: int
    latency_p50_s: float | None
    latency_p95_s: float | None
    latency_p90_s: float | None = None
    latency_p99_s: float | None = None
    latency_max_s: float | None = None
    latency_histogram: LatencyHistogram | None = None


@dataclass(frozen=True)
class Result:
    """One evaluation of one submission on one suite."""

    status: str
    failure: Failure | None
    suite: SuiteRef | None
    score: Score | None
    tasks: tuple[TaskResult, ...]
    adapter: str
    execution_mode: str | None
    settings: Mapping[str, Any]
    versions: Mapping[str, Any]
    timing: Timing
    identity: Mapping[str, Any]
    repro_hash: str

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


def load_result(source: Path | str | bytes) -> Result:
    """Read and check a result document.

    Args:
        source: A path (`Path` or `str`), or the document's bytes.

    Raises:
        ResultError: When anything is missing, unknown, of the wrong type or out of range.
        OSError: When the file cannot be read.
    """
    raw = source if isinstance(source, bytes) else _read_capped(Path(source))
    if len(raw) > MAX_RESULT_BYTES:
        raise ResultError(f"the result is larger than {MAX_RESULT_BYTES} bytes")
    try:
        document = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ResultError("the result is not valid JSON") from error
    return _parse(document)


def timing_of(document: object) -> Timing:
    """The part `timing` of a result document, which has been parsed; ResultError as for the whole."""
    return _timing(document)


def _read_capped(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_RESULT_BYTES + 1)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _parse(document: object) -> Result:
    top = _object(document, "result", {"schema", *(field.name for field in fields(Result))})
    if top["schema"] != SCHEMA:
        raise ResultError(f"schema is not {SCHEMA}")
    status = _choice(top["status"], "status", {"scored", "failed"})
    tasks = _list(top["tasks"], "tasks", MAX_TASKS)
    result = Result(
        status=status,
        failure=None if top["failure"] is None else _failure(top["failure"]),
        suite=None if top["suite"] is None else _suite(top["suite"]),
        score=None if top["score"] is None else _score(top["score"]),
        tasks=tuple(_task(task, f"tasks[{index}]") for index, task in enumerate(tasks)),
        adapter=_text(top["adapter"], "adapter"),
        execution_mode=None if top["execution_mode"] is None else _text(top["execution_mode"], "execution_mode"),
        settings=_mapping(top["settings"], "settings"),
        versions=_mapping(top["versions"], "versions"),
        timing=_timing(top["timing"]),
        identity=_mapping(top["identity"], "identity"),
        repro_hash=_text(top["repro_hash"], "repro_hash"),
    )
    _check_whole(result)
    return result


def _check_whole(result: Result) -> None:
    if result.status == "scored":
        if result.failure is not None or result.score is None or result.suite is None or not result.tasks:
            raise ResultError("a scored result has a suite, a score, tasks and no failure")
    elif result.failure is None or result.score is not None:
        raise ResultError("a failed result has a failure and no score")
    names = [task.name for task in result.tasks]
    if len(set(names)) != len(names):
        raise ResultError("two tasks have the same name")
    if not result.repro_hash.startswith("sha256:"):
        raise ResultError("repro_hash does not start with sha256:")


def _failure(value: object) -> Failure:
    entry = _object(value, "failure", {"reason", "message"})
    return Failure(_choice(entry["reason"], "failure.reason", REASONS), _text(entry["message"], "failure.message"))


def _suite(value: object) -> SuiteRef:
    entry = _object(value, "suite", {field.name for field in fields(SuiteRef)})
    _choice(entry["visibility"], "suite.visibility", {"open", "hidden"})
    return SuiteRef(**{name: _text(text, f"suite.{name}") for name, text in entry.items()})


def _score(value: object) -> Score:
    entry = _object(value, "score", {"value", "low", "high"})
    score = Score(**{name: _unit(number, f"score.{name}") for name, number in entry.items()})
    if not score.low <= score.value <= score.high:
        raise ResultError("score.value lies outside its interval")
    return score


def _task(value: object, where: str) -> TaskResult:
    added = {"ties": 0, "metrics": {}}  # fields that the first results do not have
    entry = _object(added | _mapping(value, where), where, {field.name for field in fields(TaskResult)})
    failures = _mapping(entry["item_failures"], f"{where}.item_failures")
    metrics = _mapping(entry["metrics"], f"{where}.metrics")
    items = _count(entry["items"], f"{where}.items")
    task = TaskResult(
        name=_text(entry["name"], f"{where}.name"),
        title=_text(entry["title"], f"{where}.title"),
        family=_text(entry["family"], f"{where}.family"),
        weight=_number(entry["weight"], f"{where}.weight", low=0.0),
        items=items,
        score=_unit(entry["score"], f"{where}.score"),
        low=_unit(entry["low"], f"{where}.low"),
        high=_unit(entry["high"], f"{where}.high"),
        format_failures=_count(entry["format_failures"], f"{where}.format_failures"),
        item_failures={_text(kind, where): _count(n, f"{where}.item_failures") for kind, n in failures.items()},
        ties=_count(entry["ties"], f"{where}.ties"),
        metrics={_text(name, where): _number(n, f"{where}.metrics", low=-math.inf) for name, n in metrics.items()},
    )
    if task.format_failures + sum(task.item_failures.values()) > items:
        raise ResultError(f"{where} counts more failures than items")
    return task


def _timing(value: object) -> Timing:
    added = dict.fromkeys(("latency_p90_s", "latency_p99_s", "latency_max_s", "latency_histogram"))
    entry = _object(added | _mapping(value, "timing"), "timing", {field.name for field in fields(Timing)})
    latency = {
        name: None if entry[name] is None else _number(entry[name], f"timing.{name}", low=0.0)
        for name in ("latency_p50_s", "latency_p90_s", "latency_p95_s", "latency_p99_s", "latency_max_s")
    }
    histogram = entry["latency_histogram"]
    return Timing(
        started_at=_text(entry["started_at"], "timing.started_at"),
        wall_s=_number(entry["wall_s"], "timing.wall_s", low=0.0),
        requests=_count(entry["requests"], "timing.requests"),
        retries=_count(entry["retries"], "timing.retries"),
        latency_histogram=None if histogram is None else _histogram(histogram, "timing.latency_histogram"),
        **latency,
    )


def _histogram(value: object, where: str) -> LatencyHistogram:
    entry = _object(value, where, {"edges_s", "counts"})
    edges_s = _list(entry["edges_s"], f"{where}.edges_s", MAX_EDGES)
    edges = tuple(_number(one, f"{where}.edges_s", low=0.0) for one in edges_s)
    counts = tuple(_count(n, f"{where}.counts") for n in _list(entry["counts"], f"{where}.counts", MAX_EDGES))
    if len(edges) != len(counts) + 1 or any(low >= high for low, high in pairwise(edges)):
        raise ResultError(f"{where} needs ascending edges_s, one more than counts")
    return LatencyHistogram(edges, counts)


def _object(value: object, where: str, keys: set[str]) -> dict[str, Any]:
    entry = _mapping(value, where)
    if missing := keys - entry.keys():
        raise ResultError(f"{where} lacks {', '.join(sorted(missing))}")
    if unknown := entry.keys() - keys:
        raise ResultError(f"{where} has {len(unknown)} unknown field(s)")
    return entry


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ResultError(f"{where} is not an object")
    return value


def _list(value: object, where: str, limit: int) -> list[object]:
    if not isinstance(value, list) or len(value) > limit:
        raise ResultError(f"{where} is not a list of at most {limit} entries")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS:
        raise ResultError(f"{where} is not a text of at most {MAX_TEXT_CHARS} characters")
    return value


def _choice(value: object, where: str, allowed: set[str] | frozenset[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ResultError(f"{where} is not one of {', '.join(sorted(allowed))}")
    return value


def _number(value: object, where: str, *, low: float, high: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ResultError(f"{where} is not a finite number")
    if not low <= value <= high:
        raise ResultError(f"{where} is out of range")
    return float(value)


def _unit(value: object, where: str) -> float:
    return _number(value, where, low=0.0, high=1.0)


def _count(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ResultError(f"{where} is not a count")
    return value
