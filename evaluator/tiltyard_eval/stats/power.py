"""How close two entries may be before a suite can no longer tell them apart.

The minimum detectable difference is the smallest true difference that a two-sided test of the paired difference finds
with the given power: (z₁₋α⸝₂ + z_power) standard errors (Cohen 1988, Statistical Power Analysis, chapter 2; for
evaluations Miller 2024, arXiv 2411.00640, §5; for McNemar's setting Connor 1987, Biometrics 43:207).

Before anybody has answered, the standard error follows from the number of items, the weights, and the *discordance* ψ:
the share of items that just one of the two entries gets right. With a difference δ an item's difference has the
variance ψ − δ². ψ is ½ for two independent coin throwers, which is the worst there is among equally good ones; entries
tuned from one base model share most of their answers, so that 0.1 to 0.3 is usual. After a round it is measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from tiltyard_eval.stats.paired import pair_contrasts
from tiltyard_eval.stats.types import FloatArray, TaskScores, shares

LEVEL = 0.05
POWER = 0.8
WORST_DISCORDANCE = 0.5


@dataclass(frozen=True)
class TaskSize:
    """What of a task decides how precisely it measures.

    Attributes:
        items: Number of items.
        weight: The task's weight.
        clusters: Number of clusters; None when every item was drawn apart.
    """

    items: int
    weight: float
    clusters: int | None = None


def planned_difference(
    tasks: Sequence[TaskSize],
    *,
    discordance: float = WORST_DISCORDANCE,
    intraclass_correlation: float = 0.0,
    level: float = LEVEL,
    power: float = POWER,
) -> float:
    """The minimum detectable difference of a suite that nobody has answered yet, in 0..1.

    Args:
        tasks: At least one with a positive weight.
        discordance: ψ, above 0 and at most 1.
        intraclass_correlation: How much items of one cluster repeat each other, 0..1: a task with clusters of m items
            counts as items/(1 + (m − 1)·correlation) items (Kish 1965, Survey Sampling, §5.4).
        level: Of the two-sided test.
        power: Probability of finding the difference.

    Raises:
        ValueError: When an argument is out of range.
    """
    if not 0.0 < discordance <= 1.0 or not 0.0 <= intraclass_correlation <= 1.0:
        raise ValueError("discordance must be above 0 and at most 1, and the correlation within 0..1")
    if any(task.items < 1 or (task.clusters is not None and not 1 <= task.clusters <= task.items) for task in tasks):
        raise ValueError("every task needs items, and at most as many clusters as items")
    # Standard errors are √(A·variance of one item's difference).
    spread = 0.0
    for task, share in zip(tasks, shares(task.weight for task in tasks), strict=True):
        per_cluster = task.items / (task.clusters or task.items)
        spread += share**2 * (1.0 + (per_cluster - 1.0) * intraclass_correlation) / task.items
    reach = _quantiles(level, power) ** 2 * spread
    # δ = k·√(A·(ψ − δ²)), solved for δ.
    difference = math.sqrt(reach * discordance / (1.0 + reach))
    # Two entries cannot lie further apart than they differ: then every differing item speaks for the same one, ψ = δ.
    return difference if difference <= discordance else reach / (1.0 + reach)


def measured_differences(tasks: Sequence[TaskScores], *, level: float = LEVEL, power: float = POWER) -> FloatArray:
    """The minimum detectable difference of every pair of entries, from their answers, shape (E·(E − 1)/2,).

    The pairs come in the order (0, 1), (0, 2), …, (1, 2), …

    Raises:
        ValueError: With fewer than two entries.
    """
    if not tasks or len(tasks[0].scores) < 2:
        raise ValueError("a measured difference needs the answers of at least two entries")
    return np.asarray(_quantiles(level, power) * pair_contrasts(tasks).standard_error)


def _quantiles(level: float, power: float) -> float:
    if not (0.0 < level < 1.0 and 0.0 < power < 1.0):
        raise ValueError("level and power are probabilities within 0..1")
    return float(ndtri(1.0 - level / 2.0) + ndtri(power))
