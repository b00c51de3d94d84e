"""The stratified bootstrap: value, interval, weights, seed."""

import math
import random

import pytest

from tiltyard_eval.statistics import Stratum, percentile, score_strata


def coin(ones: int, count: int) -> list[float]:
    return [1.0] * ones + [0.0] * (count - ones)


def test_value_is_the_weighted_mean_of_task_means() -> None:
    total, tasks = score_strata([Stratum(coin(1, 4), 1.0), Stratum(coin(3, 4), 3.0)], seed=0)
    assert [task.value for task in tasks] == [0.25, 0.75]
    assert total.value == pytest.approx((0.25 + 3 * 0.75) / 4)


def test_interval_is_that_of_the_normal_approximation_for_many_items() -> None:
    _, (task,) = score_strata([Stratum(coin(700, 1000), 1.0)], seed=0)
    half_width = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert task.low == pytest.approx(0.7 - half_width, abs=0.003)
    assert task.high == pytest.approx(0.7 + half_width, abs=0.003)


def test_stratified_interval_ignores_the_difference_between_tasks() -> None:
    """One task all right, one all wrong: nothing varies within a stratum, so the interval has no width."""
    total, _ = score_strata([Stratum(coin(50, 50), 1.0), Stratum(coin(0, 50), 1.0)], seed=0)
    assert (total.low, total.value, total.high) == (0.5, 0.5, 0.5)


def test_interval_covers_the_truth_in_about_95_of_100_samples() -> None:
    rng = random.Random(1)  # noqa: S311 - a sample, not a secret
    covered = 0
    for repeat in range(200):
        scores = [float(rng.random() < 0.6) for _ in range(80)]
        total, _ = score_strata([Stratum(scores, 1.0)], seed=repeat, rounds=1000)
        covered += total.low <= 0.6 <= total.high
    assert 180 <= covered <= 199


def test_seed_decides_the_interval() -> None:
    strata = [Stratum([0.1 * n for n in range(10)], 1.0)]
    assert score_strata(strata, seed=1) == score_strata(strata, seed=1)
    others = [score_strata(strata, seed=seed, rounds=200)[0] for seed in range(5)]
    assert len({score.value for score in others}) == 1
    assert len({(score.low, score.high) for score in others}) > 1


def test_large_tasks_are_resampled_in_chunks() -> None:
    _, (task,) = score_strata([Stratum(coin(1500, 3000), 1.0)], seed=0)
    assert task.low < 0.5 < task.high


@pytest.mark.parametrize("strata", [[], [Stratum([], 1.0)], [Stratum([1.0], 0.0)]])
def test_nothing_to_score_is_an_error(strata: list[Stratum]) -> None:
    with pytest.raises(ValueError, match="every task needs items"):
        score_strata(strata, seed=0)


def test_percentile_of_nothing_is_none() -> None:
    assert percentile([], 0.5) is None
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0
