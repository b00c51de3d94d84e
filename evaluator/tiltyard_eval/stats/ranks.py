"""Ranks that admit what they do not know: rank intervals and tie groups.

Every pair of entries is compared on the same items. A pair is *separated* when its difference is larger than the noise
of all differences on the board at once allows: the critical value is a quantile of the largest studentised difference
over all pairs in a joint bootstrap, applied in steps (Romano and Wolf 2005, Econometrica 73:1237). The rank of an entry
then lies between 1 + the number of entries separated above it, and the number of entries minus those separated below it
(Mogstad, Romano, Shaikh and Wilhelm 2024, Review of Economic Studies 91:476; Klein, Wright and Wieczorek 2020, JRSS C
69:589).

Error rate: with probability of at least the confidence, no pair of the whole board is separated the wrong way round,
and so all rank intervals hold at once (family-wise, over all pairs). This is the cautious reading: a board of fifty
entries that is shown to everyone gets read as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from tiltyard_eval.stats.bootstrap import ROUNDS, resample_scores
from tiltyard_eval.stats.contrast import Contrasts
from tiltyard_eval.stats.paired import pair_contrasts
from tiltyard_eval.stats.types import CONFIDENCE, BoolArray, FloatArray, IntArray, Interval, TaskScores, checked, shares

_ROUNDING = 1e-12  # what is left of the difference of two entries that are the same
_FEW = 100  # entries whose pairs are all looked at; sorting out the extreme ones costs more than they do
_EXTREMES = 32  # at either end of a round, for a first guess of its largest difference


@dataclass(frozen=True)
class Ranking:
    """A board of E entries, in the order in which they were given.

    Attributes:
        scores: Weighted means, shape (E,).
        low, high: Rank intervals, 1 is best, shape (E,).
        group: Tie group, 1 is best, shape (E,); see `tie_groups`.
        separated: Whether the row's entry is better than the column's for sure, shape (E, E).
        critical: How many standard errors two entries had to lie apart at the first step.
    """

    scores: FloatArray
    low: IntArray
    high: IntArray
    group: IntArray
    separated: BoolArray
    critical: float

    def rank_interval(self, entry: int) -> Interval:
        """The entry's rank by score alone (1 + the number of better scores) with its interval."""
        rank = 1 + int((self.scores > self.scores[entry]).sum())
        return Interval(rank, int(self.low[entry]), int(self.high[entry]))


def rank_entries(
    tasks: Sequence[TaskScores], *, seed: int, confidence: float = CONFIDENCE, rounds: int = ROUNDS
) -> Ranking:
    """Rank entries that answered the same items.

    Args:
        tasks: The suite's tasks with the scores of all entries.
        seed: Of the resampling; the same scores and seed give the same ranks.
        confidence: That all rank intervals hold at once.
        rounds: Bootstrap rounds.

    Raises:
        ValueError: When there are no items, or the weights are all zero.
    """
    weights = shares(task.weight for task in tasks)
    means = np.stack([checked(task).scores.mean(axis=1) for task in tasks])  # (tasks, entries)
    scores = np.asarray(weights @ means)
    entries = len(scores)
    separated = np.zeros((entries, entries), dtype=np.bool_)
    first, second = np.triu_indices(entries, k=1)
    if entries == 1:
        return _ranking(scores, separated, 0.0)
    pairs = pair_contrasts(tasks)
    noise = resample_scores(tasks, rng=np.random.default_rng(seed), rounds=rounds) - scores  # (rounds, entries)
    scale = _inverse_spreads(noise)
    left, criticals = np.ones(len(first), dtype=np.bool_), []
    # Each step leaves out the pairs that are settled, which lowers the bar for the others.
    while left.any():
        critical = _critical(noise, scale, confidence)
        # The bar has the same tail of Student's distribution, since standard errors err too; so it is never lower.
        likely = np.flatnonzero(left & (np.abs(pairs.centre) > critical * pairs.standard_error))
        bars = stdtrit(pairs.error_df[likely], ndtr(critical))
        settled = np.zeros_like(left)
        settled[likely] = np.abs(pairs.centre[likely]) > bars * pairs.standard_error[likely]
        criticals.append(critical)
        if not settled.any():
            break
        left &= ~settled
        _leave_out(scale, first[settled], second[settled])
        _separate(separated, first[settled], second[settled], pairs, settled)
    return _ranking(scores, separated, criticals[0])


def rank_resampled(scores: FloatArray, rounds: FloatArray, *, confidence: float = CONFIDENCE) -> Ranking:
    """Rank entries by a score that is no weighted mean, such as win rates, from its joint bootstrap alone.

    A pair is separated as in `rank_entries`, but measured by the spread of its difference over the rounds, since there
    is no formula for its standard error. A difference that is the same in every round is taken as sure, so give every
    task some twenty items or more. Resampled win rates of entries that are truly equal are not normal; then the stated
    confidence is approximate.

    Args:
        scores: Shape (E,).
        rounds: The scores in each bootstrap round, all entries resampled together, shape (rounds, E).
        confidence: That all rank intervals hold at once.
    """
    entries = len(scores)
    separated = np.zeros((entries, entries), dtype=np.bool_)
    first, second = np.triu_indices(entries, k=1)
    noise = rounds - rounds.mean(axis=0)
    difference = scores[first] - scores[second]
    spread = np.concatenate(
        [(noise[:, [one]] - noise[:, one + 1 :]).std(axis=0) for one in range(entries - 1)] or [scores[:0]]
    )
    scale = _inverse_spreads(noise)
    left, criticals = np.ones(len(first), dtype=np.bool_), [0.0]
    while left.any():
        critical = _critical(noise, scale, confidence)
        settled = left & (np.abs(difference) > critical * spread)
        criticals.append(critical)
        if not settled.any():
            break
        left &= ~settled
        _leave_out(scale, first[settled], second[settled])
        better = np.where(difference[settled] > 0.0, first[settled], second[settled])
        separated[better, first[settled] + second[settled] - better] = True
    return _ranking(scores, separated, criticals[min(1, len(criticals) - 1)])


def _separate(separated: BoolArray, first: IntArray, second: IntArray, pairs: Contrasts, settled: BoolArray) -> None:
    first_wins = pairs.centre[settled] > 0.0
    separated[np.where(first_wins, first, second), np.where(first_wins, second, first)] = True


def _inverse_spreads(noise: FloatArray) -> FloatArray:
    """One over the spread of each pair's difference over the rounds, shape (E, E); 0 for two that never differ.

    Noise is divided by its own spread, not by the standard error, which is larger for the pseudo-items in it: the two
    would otherwise shrink the critical value with few items.
    """
    products = noise.T @ noise / len(noise)
    both = products.diagonal()[:, None] + products.diagonal()
    squares = both - 2.0 * products
    return np.where(squares > _ROUNDING * both, 1.0 / np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny)), 0.0)


def _leave_out(scale: FloatArray, first: IntArray, second: IntArray) -> None:
    scale[first, second] = scale[second, first] = 0.0


def _critical(noise: FloatArray, scale: FloatArray, confidence: float) -> float:
    """The quantile of the largest studentised difference; at least that of a single pair.

    Args:
        noise: Shape (rounds, E).
        scale: As `_inverse_spreads` gives it, with 0 for pairs that are left out, shape (E, E).
        confidence: Which quantile.
    """
    if noise.shape[1] <= _FEW:
        largest = np.max([(np.abs(noise - noise[:, [i]]) * row).max(axis=1) for i, row in enumerate(scale)], axis=0)
    else:
        most = scale.max(axis=1)
        largest = np.array([_largest(round_, scale, most) for round_ in noise])
    return max(float(np.quantile(largest, confidence)), float(ndtri(0.5 + confidence / 2.0)))


def _largest(noise: FloatArray, scale: FloatArray, most: FloatArray) -> float:
    """The largest studentised difference in one round: of shapes (E,), (E, E), and the latter's maxima (E,).

    Few entries can be part of it: an entry's difference to the other end of the round, times the most that it is
    multiplied with, must be above what the round's extremes give. Only those are compared.
    """
    lowest, highest = noise.min(), noise.max()
    order = np.argsort(noise)
    low, high = order[:_EXTREMES], order[-_EXTREMES:]
    found = 0.0
    for _ in range(2):
        gaps = noise[high] - noise[low, None]
        gaps *= scale[low[:, None], high]
        found = max(found, float(gaps.max(initial=0.0)))
        low, high = np.flatnonzero((highest - noise) * most > found), np.flatnonzero((noise - lowest) * most > found)
    return found


def _ranking(scores: FloatArray, separated: BoolArray, critical: float) -> Ranking:
    low = 1 + separated.sum(axis=0)
    high = len(scores) - separated.sum(axis=1)
    return Ranking(scores, low, high, tie_groups(scores, separated), separated, critical)


def tie_groups(scores: FloatArray, separated: BoolArray) -> IntArray:
    """Part the board, from the best score down, into groups without a separated leader.

    A group begins with its leader and goes on until the first entry that is separated from this leader, who leads the
    next group. So no entry of a group is shown to be worse than its leader, and every leader is shown to be worse than
    the leader before. Two neighbours of different groups need not be separated from each other: that is what rank
    intervals are for.

    Args:
        scores: Shape (E,).
        separated: As in `Ranking`, shape (E, E).

    Returns:
        Numbers from 1, the best group, in the order of `scores`; shape (E,).
    """
    groups = np.zeros(len(scores), dtype=np.int64)
    leader, group = None, 0
    for entry in np.argsort(-scores, kind="stable"):
        if leader is None or separated[leader, entry]:
            leader, group = entry, group + 1
        groups[entry] = group
    return groups
