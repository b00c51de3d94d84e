"""Synthetic competitions: item scores whose true means are known, with clusters and shared difficulty."""

import numpy as np

from tiltyard_eval.stats.types import FloatArray, IntArray, TaskScores


def binary_items(
    rng: np.random.Generator, mean: float, items: int, *, cluster_size: int = 1, icc: float = 0.0
) -> tuple[FloatArray, IntArray | None]:
    """0/1 scores with the given mean; items of a cluster share a beta-distributed one (beta-binomial)."""
    if cluster_size == 1:
        return (rng.random(items) < mean).astype(np.float64), None
    clusters = np.arange(items) // cluster_size
    if mean in (0.0, 1.0):
        return np.full(items, mean), clusters
    spread = (1.0 - icc) / icc
    own = rng.beta(mean * spread, (1.0 - mean) * spread, size=clusters[-1] + 1)  # (clusters,)
    return (rng.random(items) < own[clusters]).astype(np.float64), clusters


def board(
    rng: np.random.Generator,
    abilities: FloatArray,
    *,
    tasks: int,
    items: int,
    cluster_size: int = 1,
    difficulty_sd: float = 1.0,
) -> tuple[list[TaskScores], FloatArray]:
    """Entries answer the same items; a logistic model of ability minus difficulty, which whole clusters share.

    Returns:
        The tasks, and the true score of each entry, shape (entries,).
    """
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(60)
    truth = sigmoid(abilities[:, None] - difficulty_sd * nodes) @ (node_weights / node_weights.sum())
    made = []
    for _ in range(tasks):
        clusters = np.arange(items) // cluster_size
        difficulty = difficulty_sd * rng.standard_normal(clusters[-1] + 1)[clusters]  # (items,)
        right = rng.random((len(abilities), items)) < sigmoid(abilities[:, None] - difficulty)
        made.append(TaskScores(right.astype(np.float64), 1.0, clusters if cluster_size > 1 else None))
    return made, truth


def sigmoid(values: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-values)))
