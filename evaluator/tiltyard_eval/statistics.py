"""Scores with intervals: percentile bootstrap over items, stratified by task.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13 (percentile interval). Items are resampled
within their task, so the number of items per task, which the suite fixes, does not vary between rounds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltyard_eval.results import Score

ROUNDS = 10_000
CONFIDENCE = 0.95
# 10,000 rounds of 2,000 items would be 160 MB of indices at once; a chunk keeps it below some 16 MB.
_CHUNK_INDICES = 2_000_000
_DIGITS = 9


@dataclass(frozen=True)
class Stratum:
    """The item scores of one task, each in 0..1, and the task's weight."""

    scores: Sequence[float]
    weight: float


def score_strata(strata: Sequence[Stratum], *, seed: int, rounds: int = ROUNDS) -> tuple[Score, list[Score]]:
    """Score a run: weighted mean of task means, and each task's mean, all with 95 % intervals.

    Args:
        strata: One entry per task, in the suite's order; none may be empty, and some weight must be positive.
        seed: Seeds the resampling, so the same scores always give the same interval.
        rounds: Bootstrap rounds.

    Returns:
        The total and one score per stratum.
    """
    total_weight = math.fsum(stratum.weight for stratum in strata)
    if not strata or total_weight <= 0 or any(len(stratum.scores) == 0 for stratum in strata):
        raise ValueError("every task needs items, and the weights must not all be zero")
    rng = np.random.default_rng(seed)
    pooled_means = np.zeros(rounds)  # (rounds,)
    per_task: list[Score] = []
    for stratum in strata:
        means = _resampled_means(np.asarray(stratum.scores, dtype=np.float64), rng, rounds)
        pooled_means += means * (stratum.weight / total_weight)
        per_task.append(_interval(_mean(stratum.scores), means))
    weighted = [_mean(stratum.scores) * stratum.weight for stratum in strata]
    return _interval(math.fsum(weighted) / total_weight, pooled_means), per_task


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)


def _resampled_means(scores: NDArray[np.float64], rng: np.random.Generator, rounds: int) -> NDArray[np.float64]:
    count = len(scores)
    means = np.empty(rounds)
    step = max(1, _CHUNK_INDICES // count)
    for start in range(0, rounds, step):
        size = min(step, rounds - start)
        picks = rng.integers(0, count, size=(size, count))  # (size, count)
        means[start : start + size] = scores[picks].mean(axis=1)
    return means


def _interval(value: float, means: NDArray[np.float64]) -> Score:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    # A percentile interval of a very skewed sample may miss the mean by rounding; the value always lies inside ours.
    return Score(
        value=round(value, _DIGITS),
        low=round(max(0.0, min(float(low), value)), _DIGITS),
        high=round(min(1.0, max(float(high), value)), _DIGITS),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` (0..1) of `values` lie, or None when there are none."""
    return float(np.quantile(np.asarray(values), share)) if values else None
