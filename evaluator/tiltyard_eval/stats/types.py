"""What the statistics take and give: item scores by task, and values with their intervals.

A *task* is a stratum: how many items it has is fixed by the suite, so items are compared and resampled within it only.
A *cluster* is a set of items of one task that were not drawn apart, such as the items of one template or of one
skeleton. A *weight* is what the suite declares for a task; weights need not sum to one.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Stratum:
    """The item scores of one entry on one task, each in 0..1, the task's weight, and each item's cluster if any."""

    scores: Sequence[float]
    weight: float
    clusters: Sequence[Hashable] | None = None


@dataclass(frozen=True)
class TaskScores:
    """The scores of several entries on the same items of one task.

    Attributes:
        scores: Shape (entries, items), each in 0..1.
        weight: The task's weight, not negative.
        clusters: Shape (items,), the number of each item's cluster; None when every item was drawn apart.
    """

    scores: FloatArray
    weight: float
    clusters: IntArray | None = None


@dataclass(frozen=True)
class Interval:
    """A value and its interval: 0..1 for a score, −1..1 for a difference."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A difference with its interval, and how surprising it would be if there were none.

    Attributes:
        value, low, high: The difference and its interval at the confidence asked for, in units of the score.
        standard_error: Of the difference, in the same unit.
        p_value: Two-sided, of the hypothesis that the difference is zero.
    """

    value: float
    low: float
    high: float
    standard_error: float
    p_value: float

    @property
    def interval(self) -> Interval:
        return Interval(self.value, self.low, self.high)


def stack(entries: Sequence[Sequence[Stratum]]) -> list[TaskScores]:
    """Put the scores of several entries on one suite side by side.

    Args:
        entries: For each entry its strata, in the suite's order. All entries answered the same items.

    Raises:
        ValueError: When there is no entry or no task, or entries differ in tasks, items, weights or clusters, or a
            score is not a number in 0..1.
    """
    if not entries or not entries[0]:
        raise ValueError("every comparison needs entries, and every entry needs tasks")
    first = entries[0]
    if any(len(strata) != len(first) for strata in entries):
        raise ValueError("all entries must have been scored on the same tasks")
    return [_stack_task([strata[index] for strata in entries], index) for index in range(len(first))]


def _stack_task(strata: Sequence[Stratum], index: int) -> TaskScores:
    first = strata[0]
    for stratum in strata:
        if len(stratum.scores) != len(first.scores) or stratum.weight != first.weight:
            raise ValueError(f"task {index}: all entries must have the same items and the same weight")
        if (stratum.clusters is None) != (first.clusters is None) or (
            stratum.clusters is not None
            and first.clusters is not None
            and list(stratum.clusters) != list(first.clusters)
        ):
            raise ValueError(f"task {index}: all entries must have the same clusters")
    scores = np.array([stratum.scores for stratum in strata], dtype=np.float64)  # (entries, items)
    clusters = None if first.clusters is None else cluster_numbers(first.clusters)
    return checked(TaskScores(scores, first.weight, clusters), f"task {index}")


def checked(task: TaskScores, where: str = "task") -> TaskScores:
    """The same task; raises ValueError, naming `where`, unless its shapes and its numbers are as documented."""
    if task.scores.ndim != 2 or 0 in task.scores.shape:
        raise ValueError(f"{where}: every task needs items, as an array of entries × items")
    if not (np.isfinite(task.scores).all() and task.scores.min() >= 0.0 and task.scores.max() <= 1.0):
        raise ValueError(f"{where}: every score must be a number from 0 to 1")
    if not np.isfinite(task.weight) or task.weight < 0:
        raise ValueError(f"{where}: a weight must be a finite number and not negative")
    if task.clusters is not None and task.clusters.shape != (task.scores.shape[1],):
        raise ValueError(f"{where}: clusters must name one cluster for each item")
    return task


def shares(weights: Iterable[float]) -> FloatArray:
    """Weights as shares of their sum; raises ValueError when none is positive or one is negative."""
    array = np.array(list(weights), dtype=np.float64)  # (tasks,)
    if array.size == 0 or not np.isfinite(array).all() or array.min() < 0 or array.sum() <= 0:
        raise ValueError("every task needs items, and the weights must not be negative and not all be zero")
    return np.asarray(array / array.sum())


def cluster_numbers(labels: Sequence[Hashable]) -> IntArray:
    """Number clusters 0, 1, … in order of first appearance, shape (items,)."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)
