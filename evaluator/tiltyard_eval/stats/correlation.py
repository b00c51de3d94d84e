"""How well the open board predicts the hidden one: rank correlation with an interval.

The interval is that of Bonett and Wright (2000, Psychometrika 65:23): Fisher's z with the standard error
√((1 + r²/2)/(n − 3)) for Spearman's ρ, and √(0.437/(n − 4)) for Kendall's τ. It treats the entries as a sample of such
entries, and concerns the correlation of *measured* scores: noise in either score lowers it. With eight entries and ρ =
0 it reaches from about −0.7 to 0.7, and that is the finding: eight entries say little.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.special import ndtri
from scipy.stats import kendalltau, spearmanr

from tiltyard_eval.stats.types import CONFIDENCE, Interval

MIN_ENTRIES = 5


def rank_correlation(
    one: Sequence[float],
    other: Sequence[float],
    *,
    kind: Literal["spearman", "kendall"] = "spearman",
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Correlate the ranks of two scores of the same entries; ties get their mean rank, and Kendall's is τ-b.

    Returns:
        The correlation in −1..1 with its interval, or None when it does not exist because all scores of one kind agree.

    Raises:
        ValueError: With fewer than five entries, lengths that differ, or a score that is not finite.
    """
    if len(one) != len(other) or len(one) < MIN_ENTRIES:
        raise ValueError(f"a rank correlation needs two scores of each of at least {MIN_ENTRIES} entries")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("every score must be a finite number; leave out entries without one")
    if len(set(one)) == 1 or len(set(other)) == 1:
        return None
    value = float((spearmanr if kind == "spearman" else kendalltau)(one, other).statistic)
    value = min(1.0, max(-1.0, value))
    variance = (1.0 + value**2 / 2.0) / (len(one) - 3) if kind == "spearman" else 0.437 / (len(one) - 4)
    # Perfect agreement has no finite z: take the next lower value that these many entries could have shown.
    within = math.copysign(min(abs(value), _largest_below_one(len(one), kind)), value)
    half_width = float(ndtri(0.5 + confidence / 2.0)) * math.sqrt(variance)
    low, high = math.tanh(math.atanh(within) - half_width), math.tanh(math.atanh(within) + half_width)
    return Interval(value, min(low, value), max(high, value))


def _largest_below_one(entries: int, kind: str) -> float:
    """The correlation when just two neighbours have changed places."""
    swaps = 12.0 / (entries * (entries**2 - 1)) if kind == "spearman" else 4.0 / (entries * (entries - 1))
    return 1.0 - swaps
