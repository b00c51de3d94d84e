"""Reading `samples.jsonl`, every field checked, as the result beside it is."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiltyard_eval.results import Result

TEXT_CHARS_MAX = 20_000
LINES_MAX = 1_000_000


@dataclass(frozen=True)
class SampleRow:
    """One item: what was asked, answered and expected, and its score in 0..1. Of a hidden suite, for nobody's eyes."""

    task: str
    index: int
    prompt: str
    answer: str
    expected: str
    score: float
    failure: str | None


class SamplesError(ValueError):
    """The samples cannot be what the evaluator wrote; the message quotes none of them."""


def parse_samples(content: bytes, result: Result) -> tuple[SampleRow, ...]:
    """The rows in the order of the result's tasks and of their items; raises SamplesError."""
    lines = content.splitlines()
    if len(lines) > LINES_MAX:
        raise SamplesError(f"more than {LINES_MAX} samples")
    rows = [_row(line, number) for number, line in enumerate(lines, 1)]
    by_task: dict[str, list[SampleRow]] = {task.name: [] for task in result.tasks}
    for row in rows:
        if row.task not in by_task:
            raise SamplesError("a sample belongs to no task of the result")
        by_task[row.task].append(row)
    for task in result.tasks:
        by_task[task.name].sort(key=lambda row: row.index)
        _check_task(task.name, task.items, task.score, by_task[task.name])
    return tuple(row for task in result.tasks for row in by_task[task.name])


def _check_task(name: str, items: int, score: float, rows: Sequence[SampleRow]) -> None:
    if len(rows) != items or len({row.index for row in rows}) != items:
        raise SamplesError(f"task {name} has {items} items but {len(rows)} samples")
    if items and not math.isclose(math.fsum(row.score for row in rows) / items, score, abs_tol=1e-6):
        raise SamplesError(f"the samples of task {name} do not give its score")


def _row(line: bytes, number: int) -> SampleRow:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise SamplesError(f"line {number} is not JSON") from None
    if not isinstance(values, dict):
        raise SamplesError(f"line {number} is not an object")
    index, score, failure = values.get("index"), values.get("score"), values.get("failure")
    if type(index) is not int or index < 0:
        raise SamplesError(f"line {number}: index is not a count")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:  # also refuses NaN
        raise SamplesError(f"line {number}: score is not in 0..1")
    if failure is not None and not isinstance(failure, str):
        raise SamplesError(f"line {number}: failure is not a text")
    return SampleRow(
        task=_text(values, "task", number),
        index=index,
        prompt=_text(values, "prompt", number),
        answer=_text(values, "answer", number),
        expected=_text(values, "expected", number),
        score=float(score),
        failure=failure[:40] if failure else None,
    )


def _text(values: Mapping[str, Any], key: str, number: int) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise SamplesError(f"line {number}: {key} is not a text")
    # Lone surrogates and NUL are legal JSON but no database stores them.
    text = value.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
    return text if len(text) <= TEXT_CHARS_MAX else text[:TEXT_CHARS_MAX] + "…"
