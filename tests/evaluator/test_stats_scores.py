"""The score of one entry: value, interval, weights, clusters, and its place between base model and ceiling."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltyard_eval.stats import Interval, Stratum, stack
from tiltyard_eval.stats.scores import normalised_score, score_entries, score_strata

unit = st.floats(0.0, 1.0, allow_nan=False)
strata_lists = st.lists(
    st.builds(Stratum, st.lists(unit, min_size=1, max_size=12), st.floats(0.1, 10.0)), min_size=1, max_size=5
)


def coin(ones: int, count: int) -> list[float]:
    return [1.0] * ones + [0.0] * (count - ones)


def test_value_is_the_weighted_mean_of_task_means() -> None:
    total, tasks = score_strata([Stratum(coin(1, 4), 1.0), Stratum(coin(3, 4), 3.0)])
    assert [task.value for task in tasks] == [0.25, 0.75]
    assert total.value == pytest.approx((0.25 + 3 * 0.75) / 4)


def test_interval_is_that_of_the_normal_approximation_for_many_items() -> None:
    _, (task,) = score_strata([Stratum(coin(700, 1000), 1.0)])
    half_width = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert task.low == pytest.approx(0.7 - half_width, abs=0.002)
    assert task.high == pytest.approx(0.7 + half_width, abs=0.002)


@pytest.mark.parametrize("ones", [0, 1, 7, 19, 20])
def test_one_binary_task_gets_agresti_and_coulls_interval(ones: int) -> None:
    _, (task,) = score_strata([Stratum(coin(ones, 20), 1.0)])
    share = (ones + 2) / 24
    half_width = 1.959964 * math.sqrt(share * (1 - share) / 24)
    assert task.low == pytest.approx(min(max(0.0, share - half_width), ones / 20), abs=1e-6)
    assert task.high == pytest.approx(max(min(1.0, share + half_width), ones / 20), abs=1e-6)


def test_two_binary_tasks_get_price_and_bonetts_interval() -> None:
    """With two samples and a difference it is Agresti and Caffo's: one item is added at either end of each."""
    total, _ = score_strata([Stratum(coin(9, 10), 1.0), Stratum(coin(3, 15), 1.0)])
    first, second = 10 / 12, 4 / 17
    half_width = 1.959964 * math.sqrt(first * (1 - first) / 12 + second * (1 - second) / 17) / 2
    assert total.low == pytest.approx((first + second) / 2 - half_width, abs=1e-6)
    assert total.high == pytest.approx((first + second) / 2 + half_width, abs=1e-6)


def test_a_task_all_right_is_not_certain() -> None:
    """The rule of three: none wrong among n still allows about 3/n wrong ones."""
    total, tasks = score_strata([Stratum(coin(60, 60), 1.0)] * 8)
    assert (total.value, total.high) == (1.0, 1.0)
    assert 1 - 2 * 3 / 480 < total.low < 1 - 3 / 480
    assert all(1 - 2 * 3 / 60 < task.low < 1 - 3 / 60 for task in tasks)


def test_stratified_interval_ignores_the_difference_between_tasks() -> None:
    """One task all right, one all wrong: what differs between tasks is no noise."""
    apart, _ = score_strata([Stratum(coin(50, 50), 1.0), Stratum(coin(0, 50), 1.0)])
    mixed, _ = score_strata([Stratum(coin(50, 100), 1.0)])
    assert apart.value == mixed.value == 0.5
    assert apart.high - apart.low < 0.3 * (mixed.high - mixed.low)


def test_copies_of_items_add_nothing_when_they_are_a_cluster() -> None:
    rng = np.random.default_rng(0)
    once = [float(score) for score in rng.random(40) < 0.6]
    copies = [score for score in once for _ in range(10)]
    (plain, _), (blind, _), (clustered, _) = (
        score_strata([Stratum(scores, 1.0, clusters)])
        for scores, clusters in ((once, None), (copies, None), (copies, [i // 10 for i in range(400)]))
    )
    assert plain.value == clustered.value
    assert clustered.high - clustered.low == pytest.approx(plain.high - plain.low, rel=0.05)
    assert blind.high - blind.low < 0.4 * (clustered.high - clustered.low)


def test_one_cluster_says_nothing_of_its_variance() -> None:
    total, _ = score_strata([Stratum(coin(50, 100), 1.0, ["t"] * 100)])
    assert (total.low, total.high) == (0.0, 1.0)


def test_clusters_are_told_apart_by_label_whatever_their_order() -> None:
    rng = np.random.default_rng(3)
    scores, labels = (rng.random(60) < 0.5).astype(float), rng.integers(0, 12, 60)
    order = rng.permutation(60)
    one, _ = score_strata([Stratum(list(scores), 1.0, [f"c{label}" for label in labels])])
    other, _ = score_strata([Stratum(list(scores[order]), 1.0, [int(label) for label in labels[order]])])
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-9)


@given(strata_lists)
def test_the_value_lies_in_its_interval_and_the_interval_in_0_to_1(strata: list[Stratum]) -> None:
    total, tasks = score_strata(strata)
    for score in [total, *tasks]:
        assert 0.0 <= score.low <= score.value <= score.high <= 1.0
        assert score.low < score.high


@given(strata_lists, st.floats(0.01, 100.0))
def test_weights_matter_by_their_ratio_only(strata: list[Stratum], factor: float) -> None:
    one, _ = score_strata(strata)
    other, _ = score_strata([Stratum(s.scores, s.weight * factor) for s in strata])
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-8)


@given(strata_lists)
def test_right_and_wrong_mirror_each_other(strata: list[Stratum]) -> None:
    one, _ = score_strata(strata)
    mirrored, _ = score_strata([Stratum([1.0 - score for score in s.scores], s.weight) for s in strata])
    assert (one.value, one.low, one.high) == pytest.approx(
        (1 - mirrored.value, 1 - mirrored.high, 1 - mirrored.low), abs=1e-8
    )


@given(strata_lists)
def test_more_confidence_means_a_wider_interval(strata: list[Stratum]) -> None:
    narrow, _ = score_strata(strata, confidence=0.8)
    wide, _ = score_strata(strata, confidence=0.99)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


@pytest.mark.parametrize("strata", [[], [Stratum([], 1.0)], [Stratum([1.0], 0.0)]])
def test_nothing_to_score_is_an_error(strata: list[Stratum]) -> None:
    with pytest.raises(ValueError, match="every task needs items"):
        score_strata(strata)


@pytest.mark.parametrize("score", [math.nan, math.inf, 1.5, -0.1])
def test_a_score_that_is_none_is_an_error(score: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        score_strata([Stratum([0.5, score], 1.0)])


def test_normalised_score_is_0_for_the_base_model_and_1_at_the_ceiling() -> None:
    base = [Stratum(coin(20, 100), 1.0), Stratum(coin(50, 100), 3.0)]
    nothing, by_task = normalised_score(base, base)
    assert (nothing.value, by_task) == (0.0, [0.0, 0.0])
    assert nothing.low < 0.0 < nothing.high
    everything, _ = normalised_score([Stratum(coin(100, 100), 1.0), Stratum(coin(100, 100), 3.0)], base)
    assert everything.value == 1.0
    half, by_task = normalised_score(
        [Stratum(coin(40, 100), 1.0), Stratum(coin(70, 100), 3.0)], base, ceilings=[0.6, 0.9]
    )
    assert by_task == pytest.approx([0.5, 0.5])
    assert half.value == pytest.approx(0.5)


def test_normalised_score_covers() -> None:
    """The base model is measured too; its noise is part of the interval."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(1000):
        ease = rng.random((3, 50))
        base = [Stratum(list((rng.random(50) < 0.4 * row).astype(float)), 1.0) for row in ease]
        entry = [Stratum(list((rng.random(50) < 0.4 * row + 0.3).astype(float)), 1.0) for row in ease]
        found, _ = normalised_score(entry, base)
        # Means 0.2 and 0.5, so the entry stands at 0.3/0.8.
        covered += found.low <= 0.375 <= found.high
    assert 930 <= covered <= 970


def test_a_ceiling_at_the_base_model_is_refused() -> None:
    base = [Stratum(coin(99, 100), 1.0)]
    with pytest.raises(ValueError, match=r"task 0: the ceiling 1\.0 is not at least 0\.02 above"):
        normalised_score(base, base)
    with pytest.raises(ValueError, match="one number for each task"):
        normalised_score(base, base, ceilings=[1.0, 1.0])


@pytest.mark.parametrize("clusters", [None, ["a"] * 3 + ["b"] * 4 + ["c"] * 5])
def test_entries_scored_at_once_are_scored_as_one_by_one(clusters: list[str] | None) -> None:
    rng = np.random.default_rng(3)
    runs = [[Stratum(list(rng.random(12)), 2.0, clusters), Stratum(coin(n, 9), 1.0)] for n in (0, 4, 9)]
    singly = [score_strata(strata)[0] for strata in runs]
    assert score_entries(stack(runs)) == [Interval(one.value, one.low, one.high) for one in singly]
