"""Win rates, and the 2023 NeurIPS LLM Efficiency Challenge's geometric mean of them, without its two traps.

HELM's mean win rate (Liang et al. 2022, arXiv 2211.09110) is the share of the other entries that an entry beats,
averaged over scenarios. It depends on who else entered and ignores margins, so it is a secondary view. The 2023
competition multiplied win rates (arXiv 2503.13507); one scenario in which an entry beat nobody made the product zero,
up to the tiny constant that somebody had added. Here a win rate within a geometric mean is (wins + ½)/(opponents + 1),
the estimate of Krichevsky and Trofimov (1981, IEEE Trans. Information Theory 27:199), which is never 0 or 1 and has no
constant to choose.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from tiltyard_eval.stats.types import FloatArray, IntArray

Nulls = Literal["loss", "skip"]


@dataclass(frozen=True)
class WinRates:
    """Wins of E entries over each other in S scenarios.

    Attributes:
        wins: Opponents beaten, a tie counting one half, shape (E, S); NaN where an entry is not counted.
        opponents: Whom the entry was compared with, shape (E, S).
        nulls: Scenarios without a score, by entry, shape (E,).
    """

    wins: FloatArray
    opponents: IntArray
    nulls: IntArray

    def mean(self, *, weights: FloatArray | None = None) -> FloatArray:
        """HELM's mean win rate, 0..1, shape (E,); NaN for an entry that was compared nowhere.

        `weights`, shape (S,), not negative, are those of the scenarios; all are equal without.
        """
        return _mean_over_scenarios(_ratio(self.wins, self.opponents), weights)

    def geometric_mean(self, *, smoothing: float = 0.5, weights: FloatArray | None = None) -> FloatArray:
        """Geometric mean over scenarios of (wins + smoothing)/(opponents + 2·smoothing), 0..1, shape (E,).

        NaN for an entry that was compared nowhere. With `smoothing=0` it is the 2023 competition's, zeros and all.
        `weights`, shape (S,), not negative, are the scenarios' exponents before they are scaled to add up to one; an
        entry that is not compared in a scenario shares that scenario's weight among its others.
        """
        if smoothing < 0.0:
            raise ValueError("smoothing must not be negative")
        with np.errstate(divide="ignore"):
            logarithms = np.log(_ratio(self.wins + smoothing, np.asarray(self.opponents + 2.0 * smoothing)))
        counted = np.where(self.opponents > 0, logarithms, np.nan)
        return np.exp(_mean_over_scenarios(counted, weights))


def win_rates(scores: FloatArray, *, nulls: Nulls = "loss") -> WinRates:
    """Compare all entries with each other, scenario by scenario.

    Args:
        scores: Shape (E, S), higher is better; NaN where an entry has no score.
        nulls: `loss`: an entry without a score loses against every other, so that leaving a scenario out never pays,
            and two without a score beat neither each other nor anybody. `skip`: it is not compared there at all.

    Raises:
        ValueError: When the scores are not a table, or one is infinite.
    """
    if scores.ndim != 2 or 0 in scores.shape or np.isinf(scores).any():
        raise ValueError("scores must be a table of entries × scenarios, with NaN for what is missing")
    missing = np.isnan(scores)
    # Its rank from below, less one, is how many an entry beats, ties counting one half; what is missing comes last.
    below = rankdata(np.where(missing, -np.inf, scores), axis=0) - 1.0  # (E, S)
    wins = below - missing.sum(axis=0)
    present = (~missing).sum(axis=0)  # (S,)
    if nulls == "loss":
        wins = np.where(missing, 0.0, wins + (len(scores) - present))
        opponents = np.full(scores.shape, len(scores) - 1)
    else:
        wins = np.where(missing, np.nan, wins)
        opponents = np.where(missing, 0, present - 1)
    return WinRates(wins, opponents.astype(np.int64), missing.sum(axis=1).astype(np.int64))


def _ratio(part: FloatArray, whole: FloatArray | IntArray) -> FloatArray:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))


def _mean_over_scenarios(values: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """The weighted mean of what is not NaN, shape (E,); NaN where nothing is left."""
    counted = ~np.isnan(values) * (np.ones(values.shape[1]) if weights is None else weights)  # (E, S)
    return _ratio((np.where(counted > 0.0, values, 0.0) * counted).sum(axis=1), counted.sum(axis=1))
