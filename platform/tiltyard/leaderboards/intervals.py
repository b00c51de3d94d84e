"""Intervals over several suites: the ranking score, and how much of an open score is lost on hidden questions.

Percentile bootstrap, stratified by task (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13), with the
evaluator's own resampling, so that a column with one suite shows the very interval of that suite's result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltyard_eval.statistics import CONFIDENCE, ROUNDS, Stratum

_CHUNK_INDICES = 2_000_000  # at most 16 MB of resampled indices at once


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval: 0..1 for a score, −1..1 for a difference."""

    value: float
    low: float
    high: float


def gap(
    open_strata: Sequence[Stratum], hidden_strata: Sequence[Stratum], *, seed: int, rounds: int = ROUNDS
) -> Interval:
    """Weighted mean of the open tasks minus that of the hidden tasks, with its interval.

    The two suites ask different questions, so they are resampled independently of each other.
    """
    rng = np.random.default_rng(seed)
    differences = _resampled(open_strata, rng, rounds) - _resampled(hidden_strata, rng, rounds)
    value = _weighted_mean(open_strata) - _weighted_mean(hidden_strata)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(differences, [tail, 1.0 - tail])
    return Interval(value, min(float(low), value), max(float(high), value))


def _weighted_mean(strata: Sequence[Stratum]) -> float:
    total_weight = sum(stratum.weight for stratum in strata)
    return sum(sum(stratum.scores) / len(stratum.scores) * stratum.weight for stratum in strata) / total_weight


def _resampled(strata: Sequence[Stratum], rng: np.random.Generator, rounds: int) -> NDArray[np.float64]:
    """The weighted mean of each round, shape (rounds,)."""
    total_weight = sum(stratum.weight for stratum in strata)
    pooled = np.zeros(rounds)
    for stratum in strata:
        scores = np.asarray(stratum.scores, dtype=np.float64)  # (items,)
        step = max(1, _CHUNK_INDICES // len(scores))
        for start in range(0, rounds, step):
            stop = min(rounds, start + step)
            picks = rng.integers(0, len(scores), size=(stop - start, len(scores)))  # (step, items)
            pooled[start:stop] += scores[picks].mean(axis=1) * (stratum.weight / total_weight)
    return pooled
