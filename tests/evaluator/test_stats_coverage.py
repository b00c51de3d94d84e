"""Simulated competitions with known truths: the 95 % intervals contain them in 93 to 97 of 100.

Every test plays 1,000 competitions, so the share itself has a standard error of 0.7 points.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from stats_worlds import binary_items, board

from tiltyard_eval.stats import Stratum
from tiltyard_eval.stats.contrast import Sample, contrasts
from tiltyard_eval.stats.gap import gap
from tiltyard_eval.stats.paired import difference_contrasts
from tiltyard_eval.stats.types import shares

COMPETITIONS = 1000


@dataclass(frozen=True)
class World:
    """Tasks of a synthetic suite; `unanimous` is the share of tasks that the entry gets all right or all wrong."""

    name: str
    tasks: int
    items: int
    cluster_size: int = 1
    icc: float = 0.0
    unanimous: float = 0.0
    equal_weights: bool = True
    first_weight: float = 1.0


WORLDS = [
    World("usual", 8, 60),
    World("one task of 10", 1, 10),
    World("one task of 20", 1, 20),
    World("8 tasks of 5", 8, 5),
    World("40 tasks of 3", 40, 3),
    World("half unanimous", 8, 60, unanimous=0.5),
    World("half unanimous, few items", 8, 6, unanimous=0.5),
    World("unequal weights", 8, 20, equal_weights=False),
    World("one task weighs 10 times as much", 8, 20, first_weight=10.0),
    World("one task weighs 100 times as much", 8, 20, first_weight=100.0),
    World("clustered", 8, 60, cluster_size=6, icc=0.3),
    World("hardly clustered", 8, 60, cluster_size=6, icc=0.02),
    World("clustered and partly unanimous", 8, 60, cluster_size=6, icc=0.3, unanimous=0.3),
    World("4 tasks of 6 clusters", 4, 24, cluster_size=4, icc=0.5),
    World("one task of 10 clusters", 1, 60, cluster_size=6, icc=0.3),
    World("uneven clusters", 2, 41, cluster_size=7, icc=0.4),
]


def share_covered(rng: np.random.Generator, world: World) -> float:
    covered = 0
    for _ in range(COMPETITIONS):
        weights = np.ones(world.tasks) if world.equal_weights else rng.uniform(0.5, 3.0, world.tasks)
        weights[0] *= world.first_weight
        means = rng.uniform(0.02, 0.98, world.tasks)
        means = np.where(rng.random(world.tasks) < world.unanimous, means.round(), means)
        samples = []
        for mean, share in zip(means, shares(weights), strict=True):
            values, clusters = binary_items(
                rng, float(mean), world.items, cluster_size=world.cluster_size, icc=world.icc
            )
            samples.append(Sample(values[None, :], float(share), clusters=clusters))
        found = contrasts(samples)
        truth = float(shares(weights) @ means)
        covered += bool(found.low[0] <= truth <= found.high[0])
    return covered / COMPETITIONS


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_score_intervals_cover(world: World) -> None:
    assert 0.93 <= share_covered(np.random.default_rng(7), world) <= 0.97


@pytest.mark.slow
def test_a_dozen_clusters_that_repeat_themselves_are_covered_with_care() -> None:
    """Thirty items that are worth twelve: here the intervals are somewhat too long rather than too short."""
    world = World("2 tasks of 6 strong clusters", 2, 30, cluster_size=5, icc=0.9)
    assert 0.95 <= share_covered(np.random.default_rng(7), world) <= 0.985


def test_the_percentile_bootstrap_would_not_cover() -> None:
    """Why the intervals are not that: with 12 items, most of them right, it misses the truth far too often."""
    rng = np.random.default_rng(1)
    samples = (rng.random((400, 12)) < 0.9).astype(float)
    picks = rng.integers(0, 12, (500, 12))
    ends = np.quantile(samples[:, picks].mean(axis=2), [0.025, 0.975], axis=1)  # (2, 400)
    assert np.mean((ends[0] <= 0.9) & (ends[1] >= 0.9)) < 0.75
    ours = contrasts([Sample(samples, 1.0)])
    assert np.mean((ours.low <= 0.9) & (ours.high >= 0.9)) > 0.93


@pytest.mark.parametrize("mean", [0.01, 0.05, 0.5, 0.95, 0.99])
@pytest.mark.parametrize("items", [5, 20, 200])
def test_no_single_truth_is_missed_often(mean: float, items: int) -> None:
    """Over truths the intervals cover 95 %; at any one, the coverage of counts jumps, but never far below."""
    draws = (np.random.default_rng(2).random((4000, items)) < mean).astype(float)
    found = contrasts([Sample(draws, 1.0)])
    assert np.mean((found.low <= mean) & (mean <= found.high)) >= 0.93


def test_partial_scores_are_covered_too() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(COMPETITIONS):
        means = rng.uniform(0.1, 0.9, 8)
        found = contrasts([Sample(rng.beta(m, 1 - m, (1, 30)), 1 / 8) for m in means])
        covered += bool(found.low[0] <= means.mean() <= found.high[0])
    assert 0.93 <= covered / COMPETITIONS <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "items", "cluster_size"),
    [(8, 60, 1), (1, 20, 1), (8, 5, 1), (8, 60, 6), (4, 24, 4)],
    ids=["usual", "one task of 20", "8 tasks of 5", "clustered", "few clusters"],
)
def test_intervals_of_paired_differences_cover(tasks: int, items: int, cluster_size: int) -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(COMPETITIONS):
        made, truth = board(rng, rng.normal(0.0, 1.0, 2), tasks=tasks, items=items, cluster_size=cluster_size)
        found = difference_contrasts(made, np.array([0]), np.array([1]))
        covered += bool(found.low[0] <= truth[0] - truth[1] <= found.high[0])
    assert 0.93 <= covered / COMPETITIONS <= 0.97


@pytest.mark.parametrize("items", [6, 60])
def test_intervals_of_the_gap_cover(items: int) -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(COMPETITIONS):
        means = rng.uniform(0.05, 0.95, (2, 4))
        strata = [[Stratum(list((rng.random(items) < m).astype(float)), 1.0) for m in row] for row in means]
        found = gap(strata[0], strata[1])
        truth = float(means[0].mean() - means[1].mean())
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / COMPETITIONS <= 0.97
