"""The Ladder: feedback on hidden questions that cannot be used to learn them.

Blum and Hardt 2015, The Ladder: A Reliable Leaderboard for Machine Learning Competitions (arXiv 1502.04585), algorithm
1: a score is published only when it beats the best published one by more than a step η, and then rounded to a multiple
of η. Whoever sends a thousand variations learns next to nothing from all the answers that did not change. Their theorem
3.1: of any sequence of k submissions, each chosen in view of all feedback before, the published best differs from the
true best score on n items by more than ε + η with probability at most

    exp(−2ε²n + (1/η + 2)·ln(4k/η) + 1).

The items of that theorem are drawn apart; with clusters, n is the number of clusters.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar


@dataclass(frozen=True)
class LadderState:
    """What the Ladder remembers of one participant: nothing but what it published.

    Attributes:
        best: The published best score, a multiple of the step; None before the first.
        submissions: How many scores were seen.
    """

    best: float | None = None
    submissions: int = 0


def ladder_update(state: LadderState, score: float, *, step: float) -> LadderState:
    """The state after one more submission; its `best` is what may be shown.

    Args:
        state: The state before.
        score: The submission's true score on the hidden items, 0..1, higher is better.
        step: η, above 0 and at most 1.

    Raises:
        ValueError: When the score is not in 0..1, or the step not in its range.
    """
    _check_step(step)
    if not 0.0 <= score <= 1.0:
        raise ValueError("a score is a number from 0 to 1")
    best = state.best
    # The first submission has to beat "nothing", which the paper sets to the worst score there is.
    if best is None or score > best + step:
        best = min(1.0, round(score / step) * step)
    return LadderState(best, state.submissions + 1)


def ladder_bound(items: int, submissions: int, *, step: float, failure: float = 0.05) -> float:
    """ε + η of theorem 3.1: how far the published best can be from the true best, in units of the score.

    Args:
        items: n, hidden items drawn apart.
        submissions: k, by one participant or by participants who share what they learn.
        step: η.
        failure: The probability with which the bound may not hold.

    Returns:
        The bound; one or more means that it promises nothing.
    """
    _check_step(step)
    if items < 1 or submissions < 1 or not 0.0 < failure < 1.0:
        raise ValueError("the bound needs at least one item and one submission, and a failure probability within 0..1")
    leaves = (1.0 / step + 2.0) * math.log(4.0 * submissions / step) + 1.0
    return step + math.sqrt((leaves - math.log(failure)) / (2.0 * items))


def ladder_step(items: int, submissions: int, *, failure: float = 0.05) -> float:
    """The step η for which `ladder_bound` is smallest, above 0 and at most 1."""

    def bound(logarithm: float) -> float:
        return ladder_bound(items, submissions, step=float(np.exp(logarithm)), failure=failure)

    return float(np.exp(minimize_scalar(bound, bounds=(math.log(1e-4), 0.0), method="bounded").x))


def _check_step(step: float) -> None:
    if not 0.0 < step <= 1.0:
        raise ValueError("the Ladder's step is a number above 0 and at most 1, such as 0.05")
