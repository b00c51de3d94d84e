"""Two entries on the same items: what separates them, item by item.

Items that both get right, or both wrong, say nothing about which is better, so pairing removes the noise that comes
from easy and hard items. Miller 2024 (arXiv 2411.00640, §4) finds that it is the largest gain in precision to be had
for nothing. The intervals are those of `contrast`.
"""

from collections.abc import Sequence

import numpy as np

from tiltyard_eval.stats.contrast import Contrasts, Sample, contrasts
from tiltyard_eval.stats.types import CONFIDENCE, Difference, FloatArray, IntArray, Stratum, TaskScores, shares, stack

_CHUNK_VALUES = 4_000_000  # differences of items held at once, 32 MB


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
    items = sum(task.scores.shape[1] for task in tasks)
    step = max(1, _CHUNK_VALUES // items)
    parts = [
        contrasts(
            [
                Sample(
                    difference_values(task, first[start : start + step], second[start : start + step]),
                    w,
                    -1.0,
                    1.0,
                    task.clusters,
                )
                for task, w in zip(tasks, weights, strict=True)
            ],
            confidence=confidence,
        )
        for start in range(0, len(first), step)
    ]
    names = ("value", "centre", "standard_error", "df", "error_df", "low", "high")
    return Contrasts(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


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
