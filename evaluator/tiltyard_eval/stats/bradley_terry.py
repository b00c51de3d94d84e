"""Bradley–Terry strengths with ties: how likely one entry answers an item better than another.

Model: Davidson (1970, JASA 65:317). With strengths πᵢ = exp(θᵢ), entry i is better on an item with probability
πᵢ/(πᵢ + πⱼ + ν√(πᵢπⱼ)), and both are equal with probability ν√(πᵢπⱼ)/(…). Without a tie in the data it is Bradley and
Terry's model (1952, Biometrika 39:324). An entry that wins everything has an infinite likelihood estimate; a normal
prior with standard deviation `PRIOR_SD` on every θ (and on ln ν) keeps it finite, and matters little with hundreds of
items (Caron and Doucet 2012, J. Computational and Graphical Statistics 21:174, for the Bayesian reading).

Items are shared by all pairs, so the likelihood's own standard errors are too short. The intervals come from the
sandwich H⁻¹·J·H⁻¹, where J sums the squared slopes of whole clusters about their task's mean (Liang and Zeger 1986,
Biometrika 73:13).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, ndtri

from tiltyard_eval.stats.types import CONFIDENCE, FloatArray, IntArray, Interval, TaskScores, checked, shares

PRIOR_SD = 3.0
NO_TIES = -np.inf


@dataclass(frozen=True)
class Strengths:
    """A fitted model of E entries.

    Attributes:
        log_strength: θ, summing to zero, shape (E,).
        tie: ν; 0 when no two entries were ever equal.
    """

    log_strength: FloatArray
    tie: float

    def win_probability(self, entry: int, other: int) -> float:
        """The probability that `entry` does better on an item, given that the two are not equal."""
        return float(expit(self.log_strength[entry] - self.log_strength[other]))


def fit_strengths(wins: FloatArray, ties: FloatArray, *, prior_sd: float = PRIOR_SD) -> Strengths:
    """Fit the model to counted games.

    Args:
        wins: wins[i, j] is how often i beat j, not negative, shape (E, E); the diagonal does not count.
        ties: How often i and j were equal; symmetric, shape (E, E).
        prior_sd: Standard deviation of the prior of each θ and of ln ν.

    Raises:
        ValueError: When shapes or counts are wrong.
    """
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or ties.shape != wins.shape or wins.shape[0] < 2:
        raise ValueError("wins and ties must be square tables of the same size, for at least two entries")
    if not (np.isfinite(wins).all() and np.isfinite(ties).all() and wins.min() >= 0 and ties.min() >= 0):
        raise ValueError("counts of games must be finite and not negative")
    if not np.allclose(ties, ties.T):
        raise ValueError("ties must be symmetric")
    first, second = np.triu_indices(len(wins), k=1)
    counts = np.stack([wins[first, second], wins[second, first], ties[first, second]])  # (3, pairs)
    return _strengths(_fit(counts, first, second, prior_sd))


def strengths_with_intervals(
    tasks: Sequence[TaskScores], *, confidence: float = CONFIDENCE, prior_sd: float = PRIOR_SD
) -> tuple[Strengths, list[Interval]]:
    """Fit the model to entries that answered the same items, every item a game between every two of them.

    Args:
        tasks: At least two entries and, in each task, two clusters. An item counts so that tasks enter by their
            weights, and all together count as many games as there are items.
        confidence: Of the intervals.
        prior_sd: As for `fit_strengths`.

    Returns:
        The fit, and an interval of each θ.

    Raises:
        ValueError: When there are fewer than two entries, or a task has no items or a single cluster.
    """
    weights = shares(task.weight for task in tasks)
    entries = checked(tasks[0]).scores.shape[0]
    if entries < 2:
        raise ValueError("strengths need at least two entries")
    first, second = np.triu_indices(entries, k=1)
    items = sum(task.scores.shape[1] for task in tasks)
    games = [  # (clusters, 3, pairs) for each task
        _games(checked(task), first, second) * (share * items / task.scores.shape[1])
        for task, share in zip(tasks, weights, strict=True)
        if share > 0.0
    ]
    if any(len(game) < 2 for game in games):
        raise ValueError("a task with a single cluster says nothing of its variance; leave it out")
    parameters = _fit(np.sum([game.sum(axis=0) for game in games], axis=0), first, second, prior_sd)
    covariance = _sandwich(games, parameters, first, second, prior_sd)
    centring = np.eye(entries) - 1.0 / entries
    variances = np.diag(centring @ covariance[:entries, :entries] @ centring)
    half_widths = float(ndtri(0.5 + confidence / 2.0)) * np.sqrt(variances)
    fitted = _strengths(parameters)
    pairs = zip(fitted.log_strength, half_widths, strict=True)
    return fitted, [Interval(float(value), float(value - half), float(value + half)) for value, half in pairs]


def _strengths(parameters: FloatArray) -> Strengths:
    theta = parameters[:-1]
    return Strengths(theta - theta.mean(), float(np.exp(parameters[-1])))


def _games(task: TaskScores, first: IntArray, second: IntArray) -> FloatArray:
    """Wins of the first, wins of the second and ties of every pair, by cluster: shape (clusters, 3, pairs)."""
    one, other = task.scores[first], task.scores[second]  # (pairs, items)
    outcomes = np.stack([one > other, one < other, one == other]).astype(np.float64)  # (3, pairs, items)
    by_item = np.moveaxis(outcomes, 2, 0)  # (items, 3, pairs)
    if task.clusters is None:
        return by_item
    _, number = np.unique(task.clusters, return_inverse=True)
    games = np.zeros((number.max() + 1, 3, len(first)))
    np.add.at(games, number, by_item)
    return games


def _log_probabilities(parameters: FloatArray, first: IntArray, second: IntArray) -> FloatArray:
    """Of the three outcomes of a game of every pair, shape (3, pairs); parameters are θ and, last, ln ν."""
    one, other = parameters[first], parameters[second]
    logits = np.stack([one, other, (one + other) / 2.0 + parameters[-1]])
    return np.asarray(logits - logsumexp(logits, axis=0))


def _to_parameters(slopes: FloatArray, first: IntArray, second: IntArray, entries: int) -> FloatArray:
    """Slopes by the three logits of every pair, shape (…, 3, pairs), as slopes by θ and ln ν, shape (…, entries +
    1)."""
    gradient = np.zeros((*slopes.shape[:-2], entries + 1))
    for pairs, of_pairs in ((first, slopes[..., 0, :]), (second, slopes[..., 1, :])):
        np.add.at(np.moveaxis(gradient, -1, 0), pairs, np.moveaxis(of_pairs + slopes[..., 2, :] / 2.0, -1, 0))
    gradient[..., -1] = slopes[..., 2, :].sum(axis=-1)
    return gradient


def _fit(counts: FloatArray, first: IntArray, second: IntArray, prior_sd: float) -> FloatArray:
    """Maximise the penalised likelihood of counts (3, pairs); θ and ln ν, which is −∞ when nothing was tied."""
    entries = int(second.max()) + 1
    has_ties = bool(counts[2].any())

    def loss(free: FloatArray) -> tuple[float, FloatArray]:
        logs = _log_probabilities(free if has_ties else np.append(free[:-1], NO_TIES), first, second)
        used = counts > 0.0
        slopes = np.exp(logs) * counts.sum(axis=0) - counts
        value = -float((counts[used] * logs[used]).sum()) + float((free**2).sum()) / (2.0 * prior_sd**2)
        return value, _to_parameters(slopes, first, second, entries) + free / prior_sd**2

    found = minimize(loss, np.zeros(entries + 1), jac=True, method="L-BFGS-B", options={"ftol": 1e-12, "gtol": 1e-8})
    return np.asarray(found.x if has_ties else np.append(found.x[:-1], NO_TIES))


def _sandwich(
    games: Sequence[FloatArray], parameters: FloatArray, first: IntArray, second: IntArray, prior_sd: float
) -> FloatArray:
    """Covariance of θ and ln ν, shape (entries + 1, entries + 1)."""
    entries = len(parameters) - 1
    probability = np.exp(_log_probabilities(parameters, first, second))  # (3, pairs)
    played = np.sum([game.sum(axis=(0, 1)) for game in games], axis=0)  # (pairs,)
    # The Hessian of a multinomial likelihood, column by column: how the slopes move with each parameter.
    unit = np.eye(entries + 1)
    moved = np.stack([unit[:, first], unit[:, second], (unit[:, first] + unit[:, second]) / 2.0 + unit[:, -1:]], axis=1)
    slopes = probability * (moved - (probability * moved).sum(axis=1, keepdims=True)) * played  # like moved
    hessian = _to_parameters(slopes, first, second, entries) + unit / prior_sd**2
    meat = np.zeros_like(hessian)
    for game in games:
        by_cluster = _to_parameters(game - probability * game.sum(axis=1, keepdims=True), first, second, entries)
        by_cluster -= by_cluster.mean(axis=0)
        meat += by_cluster.T @ by_cluster * (len(game) / (len(game) - 1))
    bread = np.linalg.inv(hessian)
    return np.asarray(bread @ meat @ bread)
