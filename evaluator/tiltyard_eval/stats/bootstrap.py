"""Joint resampling of many entries' scores: the same items for all entries, within tasks, by whole clusters.

The paired, stratified cluster bootstrap (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and
13; Davison and Hinkley 1997, Bootstrap Methods and their Application, §3.8 for clusters). It serves what has no
formula: the joint distribution of all differences on a board (`ranks`), or any statistic of resampled means. For the
score of one entry use `scores`: where all items of a sample agree, any bootstrap is sure of itself, and wrongly so.

Speed: a round needs only how often each cluster was drawn. So rounds are rows of a count matrix, and one matrix product
gives the sums of all entries.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tiltyard_eval.stats.types import CONFIDENCE, FloatArray, Interval, TaskScores, checked, shares

ROUNDS = 10_000
_CHUNK_COUNTS = 1_000_000  # 8 MB of counts at once, which still fits a processor's cache for one task


def resample_scores(tasks: Sequence[TaskScores], *, rng: np.random.Generator, rounds: int = ROUNDS) -> FloatArray:
    """Weighted mean of the task means of every entry in every round, shape (rounds, entries)."""
    weights = shares(task.weight for task in tasks)
    pooled = np.zeros((rounds, tasks[0].scores.shape[0]))
    for means, weight in zip(resample_task_means(tasks, rng=rng, rounds=rounds), weights, strict=True):
        pooled += weight * means
    return pooled


def resample_task_means(
    tasks: Sequence[TaskScores], *, rng: np.random.Generator, rounds: int = ROUNDS
) -> Iterator[FloatArray]:
    """For each task in turn the resampled means of all entries, shape (rounds, entries)."""
    for task in tasks:
        sums, sizes = cluster_sums(checked(task))
        means = np.empty((rounds, task.scores.shape[0]))
        for start, counts in cluster_counts(len(sizes), rng=rng, rounds=rounds):
            means[start : start + len(counts)] = (counts @ sums) / (counts @ sizes)[:, None]
        yield means


def cluster_sums(task: TaskScores) -> tuple[FloatArray, FloatArray]:
    """Summed scores by cluster, shape (clusters, entries), and the clusters' sizes, shape (clusters,)."""
    if task.clusters is None:
        return task.scores.T, np.ones(task.scores.shape[1])
    sizes = np.bincount(task.clusters).astype(np.float64)
    used = sizes > 0.0
    sums = np.stack([np.bincount(task.clusters, weights=row) for row in task.scores], axis=1)
    return np.asarray(sums[used]), np.asarray(sizes[used])


def cluster_counts(clusters: int, *, rng: np.random.Generator, rounds: int) -> Iterator[tuple[int, FloatArray]]:
    """How often each cluster is drawn: pairs of first round and counts, each of shape (some rounds, clusters)."""
    step = max(1, _CHUNK_COUNTS // clusters)
    for start in range(0, rounds, step):
        size = min(step, rounds - start)
        picks = rng.integers(0, clusters, size=(size, clusters))
        picks += np.arange(size)[:, None] * clusters  # each round counts into a row of its own
        counts = np.bincount(picks.ravel(), minlength=size * clusters).reshape(size, clusters)
        yield start, counts.astype(np.float64)


def percentile_interval(value: float, rounds: FloatArray, *, confidence: float = CONFIDENCE) -> Interval:
    """The percentile interval of a statistic from its resampled values, widened where it leaves out the value."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(rounds, [tail, 1.0 - tail])
    return Interval(value, min(float(low), value), max(float(high), value))
