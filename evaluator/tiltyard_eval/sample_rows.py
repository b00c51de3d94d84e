"""The rows of a `samples.jsonl`, every field checked, and whether they give the result beside them. Standard library.

Who shows a result to somebody else must not take its word for the score: the two files may come from anywhere.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tiltyard_eval.results import Result

MAX_LINE_BYTES: Final = 64 << 20  # far above what the evaluator takes from a server for one question
FORMAT_FAILURE: Final = "format"
_TOLERANCE: Final = 1e-6  # results are rounded to nine digits
_TEXTS: Final = ("task", "prompt", "answer", "expected")


class SampleError(ValueError):
    """A row is none that the evaluator writes; the message names the line and quotes nothing of it."""


@dataclass(frozen=True)
class SampleRow:
    """One item; `score` in 0..1, `failure` a kind or None.

    `latency_s` and `cluster`, what the item shares with others of its skeleton, are None where the file does not tell.
    """

    task: str
    index: int
    prompt: str
    answer: str
    expected: str
    extracted: str
    score: float
    failure: str | None
    latency_s: float | None
    cluster: str | None = None


def read_rows(path: Path) -> Iterator[SampleRow]:
    """The rows of the file, one at a time; none when it does not exist, as after a failed run.

    Raises:
        SampleError: A line is no sample.
        OSError: The file cannot be read.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise SampleError(f"{path.name} is no file")
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
            if len(line) > MAX_LINE_BYTES:
                raise SampleError(f"{path.name}, line {number}: longer than {MAX_LINE_BYTES >> 20} MiB")
            yield parse_line(line, f"{path.name}, line {number}")


def parse_line(line: bytes, where: str) -> SampleRow:
    """One line of the file as a row; raises SampleError, whose message begins with `where`."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise SampleError(f"{where}: not JSON") from None
    if not isinstance(values, dict):
        raise SampleError(f"{where}: not a JSON object")
    return parse_row(values, where)


def parse_row(values: Mapping[str, Any], where: str) -> SampleRow:
    """A decoded line as a row; raises SampleError, whose message begins with `where`."""
    index, score, failure = values.get("index"), values.get("score"), values.get("failure")
    for name in _TEXTS:
        if not isinstance(values.get(name), str):
            raise SampleError(f"{where}: {name} is not a text")
    if type(index) is not int or index < 0:
        raise SampleError(f"{where}: index is not a count")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:  # also refuses NaN
        raise SampleError(f"{where}: score is not a number from 0 to 1")
    if failure is not None and not isinstance(failure, str):
        raise SampleError(f"{where}: failure is neither null nor a text")
    cluster, latency, extracted = values.get("cluster"), values.get("latency_s"), values.get("extracted")
    if cluster is not None and not isinstance(cluster, str):
        raise SampleError(f"{where}: cluster is neither null nor a text")
    is_time = isinstance(latency, int | float) and not isinstance(latency, bool) and 0 <= latency < math.inf
    return SampleRow(
        task=values["task"],
        index=index,
        prompt=values["prompt"],
        answer=values["answer"],
        expected=values["expected"],
        extracted=extracted if isinstance(extracted, str) else "",
        score=float(score),
        failure=failure,
        latency_s=float(latency) if is_time and latency is not None else None,
        cluster=cluster,
    )


def disagreements(result: Result, rows: Iterable[SampleRow]) -> list[str]:
    """What a scored result says that its samples do not give, in words; empty when they agree."""
    if result.score is None:
        return []
    found = _Tally()
    for row in rows:
        found.add(row)
    said = [f"{found.repeated} items appear twice in the samples"] if found.repeated else []
    if strange := found.scores.keys() - {task.name for task in result.tasks}:
        said.append(f"{len(strange)} tasks of the samples are not in the result")
    for task in result.tasks:
        scores, failures = found.scores.get(task.name, []), found.failures.get(task.name, Counter())
        if len(scores) != task.items:
            said.append(f"task {task.name!r} has {task.items} items, but {len(scores)} samples")
            continue
        if scores and not _same(mean := math.fsum(scores) / len(scores), task.score):
            said.append(f"task {task.name!r} says {task.score:.1%}, but its samples give {mean:.1%}")
        counted = {kind: number for kind, number in task.item_failures.items() if number}
        if failures[FORMAT_FAILURE] != task.format_failures or counted != {
            kind: number for kind, number in failures.items() if kind != FORMAT_FAILURE
        }:
            said.append(f"task {task.name!r} counts other failures than its samples")
    total = weighted_mean([(task.score, task.weight) for task in result.tasks])
    if total is None or not _same(total, result.score.value):
        given = "nothing" if total is None else f"{total:.1%}"
        said.append(f"the score says {result.score.value:.1%}, but its tasks give {given}")
    return said


class _Tally:
    """Scores and failures of each task, and how many items came twice."""

    def __init__(self) -> None:
        self.scores: dict[str, list[float]] = {}
        self.failures: dict[str, Counter[str]] = {}
        self.repeated = 0
        self._seen: set[tuple[str, int]] = set()

    def add(self, row: SampleRow) -> None:
        key = (row.task, row.index)
        self.repeated += key in self._seen
        self._seen.add(key)
        self.scores.setdefault(row.task, []).append(row.score)
        failures = self.failures.setdefault(row.task, Counter())
        if row.failure is not None:
            failures[row.failure] += 1


def weighted_mean(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The mean of (value, weight); None when no weight is positive."""
    weight = math.fsum(weight for _, weight in pairs)
    return math.fsum(value * weight for value, weight in pairs) / weight if weight > 0 else None


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=0.0, abs_tol=_TOLERANCE)
