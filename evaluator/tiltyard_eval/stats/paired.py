"""Two entries on the same items: what separates them, item by item.

Items that both get right, or both wrong, say nothing about which is better, so pairing removes the noise that comes
from easy and hard items. Miller 2024 (arXiv 2411.00640, §4) finds that it is the largest gain in precision to be had
for nothing. The intervals are those of `contrast`.
"""

from collections.abc import Sequence

import numpy as np

from tiltyard_eval.stats.contrast import Contrasts, Sample, Summary, cluster_sums, contrasts, contrasts_of
from tiltyard_eval.stats.types import CONFIDENCE, Difference, FloatArray, IntArray, Stratum, TaskScores, shares, stack

_CHUNK_PAIRS = 100_000  # looked at at once: some twenty arrays of 0.8 MB
_ROUNDING = 1e-12  # of sums of up to a million squares


def paired_difference(
    one: Sequence[Stratum], other: Sequence[Stratum], *, confidence: float = CONFIDENCE
) -> Difference:
    """Score of `one` minus score of `other`, both on the same suite.

    Raises:
        ValueError: When they were not scored on the same items.
    """
    return as_difference(difference_contrasts(stack([one, other]), np.array([0]), np.array([1]), confidence=confidence))


def difference_contrasts(
    tasks: Sequence[TaskScores], first: IntArray, second: IntArray, *, confidence: float = CONFIDENCE
) -> Contrasts:
    """Score of entry first[k] minus that of entry second[k], for every k of B pairs at once."""
    weights = shares(task.weight for task in tasks)
    samples = [
        Sample(difference_values(task, first, second), weight, -1.0, 1.0, task.clusters)
        for task, weight in zip(tasks, weights, strict=True)
    ]
    return contrasts(samples, confidence=confidence)


def pair_contrasts(tasks: Sequence[TaskScores], *, confidence: float = CONFIDENCE) -> Contrasts:
    """`difference_contrasts` of every pair of E entries, (0, 1), (0, 2), …, (1, 2), …: B = E·(E − 1)/2.

    The differences of two entries are not looked at item by item: |a − b|² = |a|² + |b|² − 2·a·b, so that products of
    matrices do the work.

    Raises:
        ValueError: With fewer than two entries, or when a task has no items.
    """
    weights = shares(task.weight for task in tasks)
    used = [_Distances(task, weight) for task, weight in zip(tasks, weights, strict=True) if weight != 0.0]
    entries = len(tasks[0].scores)
    if entries < 2:
        raise ValueError("pairs need at least two entries")
    rows = max(1, _CHUNK_PAIRS // entries)
    parts = [
        contrasts_of([one.summary(start, min(start + rows, entries - 1)) for one in used], confidence=confidence)
        for start in range(0, entries - 1, rows)
    ]
    names = ("value", "centre", "standard_error", "df", "error_df", "low", "high")
    return Contrasts(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class _Distances:
    """Of one task: what `contrast.summarise` finds of the differences of each entry to every later one."""

    def __init__(self, task: TaskScores, weight: float) -> None:
        self._weight = weight
        sums, self._sizes = cluster_sums(task.scores, task.clusters)
        self._means = task.scores.mean(axis=1)
        self._squares = _SquaredDistances(sums - self._sizes * self._means[:, None])
        self._variances = None
        if len(self._sizes) < task.scores.shape[1]:
            scale = (task.scores.shape[1] - 1) ** -0.5
            self._variances = _SquaredDistances((task.scores - self._means[:, None]) * scale)

    def summary(self, start: int, end: int) -> Summary:
        """Of the pairs whose first entry is one of start..end."""
        later = np.arange(start, end)[:, None] < np.arange(len(self._means))  # (end - start, E)
        mean = (self._means[start:end, None] - self._means)[later]
        squares = self._squares.block(start, end)[later]
        variance = np.zeros(len(mean)) if self._variances is None else self._variances.block(start, end)[later]
        return Summary(self._weight, -1.0, 1.0, self._sizes, mean, squares, variance)


class _SquaredDistances:
    """Between rows of shape (E, n)."""

    def __init__(self, rows: FloatArray) -> None:
        self._rows = rows
        self._lengths = np.square(rows).sum(axis=1)

    def block(self, start: int, end: int) -> FloatArray:
        """From the rows start..end to all rows, shape (end - start, E)."""
        both = self._lengths[start:end, None] + self._lengths
        found = self._rows[start:end] @ self._rows.T
        found *= -2.0
        found += both
        # Two rows that are the same leave a rest of rounding, which must not pass for a variance.
        both *= _ROUNDING
        found[found <= both] = 0.0
        return found


def difference_values(task: TaskScores, first: IntArray, second: IntArray) -> FloatArray:
    """Item by item, shape (B, items)."""
    return np.asarray(task.scores[first] - task.scores[second])


def as_difference(found: Contrasts) -> Difference:
    """The only contrast of a batch of one."""
    return Difference(
        value=float(found.value[0]),
        low=float(found.low[0]),
        high=float(found.high[0]),
        standard_error=float(found.standard_error[0]),
        p_value=float(found.p_two_sided()[0]),
    )
