"""Paired differences, joint resampling, rank intervals and tie groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stats_worlds import board

from tiltyard_eval.stats import Stratum, TaskScores, stack
from tiltyard_eval.stats.bootstrap import percentile_interval, resample_scores
from tiltyard_eval.stats.paired import difference_contrasts, pair_contrasts, paired_difference
from tiltyard_eval.stats.ranks import Ranking, rank_entries, tie_groups
from tiltyard_eval.stats.types import FloatArray, IntArray


def covers(found: Ranking, truth: FloatArray) -> bool:
    """Whether all true ranks lie within their intervals; of equals every rank that they share."""
    best = 1 + (truth[None, :] > truth[:, None] + 1e-12).sum(axis=1)
    worst = (truth[None, :] >= truth[:, None] - 1e-12).sum(axis=1)
    return bool((found.low <= best).all() and (found.high >= worst).all())


def share_covered(abilities: FloatArray | None, competitions: int, **suite: int) -> float:
    rng = np.random.default_rng(11)
    covered = 0
    for seed in range(competitions):
        drawn = rng.normal(0.0, 0.7, 8) if abilities is None else abilities
        tasks, truth = board(rng, drawn, **suite)  # type: ignore[arg-type]
        covered += covers(rank_entries(tasks, seed=seed, rounds=500), truth)
    return covered / competitions


@pytest.mark.slow
def test_rank_intervals_cover_jointly() -> None:
    assert share_covered(None, 1000, tasks=8, items=60) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "items", "cluster_size"), [(8, 60, 1), (4, 6, 1), (8, 60, 6)], ids=["usual", "few items", "clustered"]
)
def test_rank_intervals_cover_when_all_are_equal(tasks: int, items: int, cluster_size: int) -> None:
    """The hardest case: any separation is an error, so the coverage should just be 95 %."""
    share = share_covered(np.zeros(8), 1000, tasks=tasks, items=items, cluster_size=cluster_size)
    assert 0.93 <= share <= 0.985


@pytest.mark.slow
def test_rank_intervals_cover_at_the_ends() -> None:
    """Entries that get nearly nothing or nearly everything right."""
    assert share_covered(np.array([-5.0, -5, -5, -4.5, 5, 5]), 500, tasks=8, items=20) >= 0.95


def test_clear_differences_give_single_ranks() -> None:
    tasks, _ = board(np.random.default_rng(0), np.array([0.0, 3.0, -3.0]), tasks=8, items=60)
    found = rank_entries(tasks, seed=0)
    assert list(found.low) == list(found.high) == [2, 1, 3]
    assert list(found.group) == [2, 1, 3]
    assert found.rank_interval(0).value == 2


def test_copies_of_one_entry_are_tied() -> None:
    tasks, _ = board(np.random.default_rng(0), np.zeros(1), tasks=4, items=30)
    copied = [TaskScores(np.repeat(task.scores, 3, axis=0), task.weight) for task in tasks]
    found = rank_entries(copied, seed=0)
    assert (list(found.low), list(found.high), list(found.group)) == ([1, 1, 1], [3, 3, 3], [1, 1, 1])


def test_a_single_entry_is_first() -> None:
    found = rank_entries([TaskScores(np.array([[0.0, 1.0]]), 1.0)], seed=0)
    assert (list(found.low), list(found.high), list(found.group)) == ([1], [1], [1])


def test_more_entries_need_larger_differences() -> None:
    rng = np.random.default_rng(1)
    few, many = (rank_entries(board(rng, np.zeros(n), tasks=8, items=60)[0], seed=0).critical for n in (2, 20))
    assert few == pytest.approx(1.96, abs=0.1)
    assert many > 3.0  # Tukey's studentised range for 20 groups is 5.0/√2 = 3.5


def test_groups_have_a_leader_who_is_separated_from_the_leader_before() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    separated = np.zeros((4, 4), dtype=np.bool_)
    separated[0, 2] = separated[0, 3] = separated[1, 3] = True  # 0 = 1 < 2, and 2 = 3
    assert list(tie_groups(scores, separated)) == [1, 1, 2, 2]


score_tables = st.integers(1, 5).flatmap(
    lambda entries: st.lists(
        st.integers(1, 8).flatmap(
            lambda items: st.lists(
                st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=items, max_size=items),
                min_size=entries,
                max_size=entries,
            )
        ),
        min_size=1,
        max_size=3,
    )
)


@settings(max_examples=60, deadline=None)
@given(score_tables, st.randoms(use_true_random=False))
def test_ranks_do_not_depend_on_the_order_of_entries(tables: list[list[list[float]]], random: object) -> None:
    tasks = [TaskScores(np.array(table), 1.0) for table in tables]
    order = list(range(len(tables[0])))
    random.shuffle(order)  # type: ignore[attr-defined]
    found = rank_entries(tasks, seed=1, rounds=200)
    shuffled = rank_entries([TaskScores(task.scores[order], 1.0) for task in tasks], seed=1, rounds=200)
    assert list(found.low[order]) == list(shuffled.low)
    assert list(found.high[order]) == list(shuffled.high)


@settings(max_examples=60, deadline=None)
@given(score_tables)
def test_ranks_are_consistent(tables: list[list[list[float]]]) -> None:
    found = rank_entries([TaskScores(np.array(table), 1.0) for table in tables], seed=1, rounds=200)
    entries = len(found.scores)
    assert ((found.low >= 1) & (found.low <= found.high) & (found.high <= entries)).all()
    assert not (found.separated & found.separated.T).any()
    for entry in range(entries):
        interval = found.rank_interval(entry)
        assert interval.low <= interval.value <= interval.high
    order = np.argsort(-found.scores, kind="stable")
    assert (np.diff(found.group[order]) >= 0).all()
    assert set(found.group) == set(range(1, found.group.max() + 1))


def studentised_largest(noise: FloatArray) -> FloatArray:
    """The largest studentised difference of each round, from all pairs one by one."""
    largest = np.zeros(len(noise))
    for one in range(noise.shape[1]):
        for other in range(one):
            gaps = noise[:, one] - noise[:, other]
            spread = np.sqrt(np.square(gaps).mean())
            if spread > 0.0:
                largest = np.maximum(largest, np.abs(gaps) / spread)
    return largest


@pytest.mark.parametrize("entries", [12, 100, 101, 160])
def test_the_critical_value_is_that_of_all_pairs(entries: int) -> None:
    rng = np.random.default_rng(entries)
    skill = rng.uniform(0.2, 0.9, (entries, 1))
    scores = (rng.random((entries, 30)) < skill).astype(np.float64)
    scores[1] = scores[0]  # two that never differ
    scores[2, 0] = 1.0 - scores[2, 0]
    tasks = [TaskScores(scores, 0.75), TaskScores(scores[:, ::-1].copy() * 0.5, 0.25, np.arange(30) // 4)]
    noise = resample_scores(tasks, rng=np.random.default_rng(5), rounds=200)
    found = rank_entries(tasks, seed=5, rounds=200)
    total = 0.75 * tasks[0].scores.mean(axis=1) + 0.25 * tasks[1].scores.mean(axis=1)
    assert found.critical == pytest.approx(np.quantile(studentised_largest(noise - total), 0.95), rel=1e-9)


@pytest.mark.parametrize("clusters", [None, np.arange(12) // 3, np.zeros(12, dtype=np.int64)])
@pytest.mark.parametrize("digits", [0, 9])
def test_all_pairs_at_once_are_the_pairs_one_by_one(clusters: IntArray | None, digits: int) -> None:
    rng = np.random.default_rng(digits)
    tasks = [
        TaskScores(rng.random((40, 12)).round(digits), 0.6, clusters),
        TaskScores(rng.random((40, 5)).round(digits), 0.4),
    ]
    for task in tasks:
        task.scores[7] = task.scores[3]  # where no item differs, clusters are taken to repeat themselves
    whole = pair_contrasts(tasks)
    single = difference_contrasts(tasks, *np.triu_indices(40, k=1))
    for name in ("value", "centre", "standard_error", "df", "error_df", "low", "high"):
        np.testing.assert_allclose(getattr(whole, name), getattr(single, name), rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_pair_needs_two() -> None:
    with pytest.raises(ValueError, match="two entries"):
        pair_contrasts([TaskScores(np.ones((1, 4)), 1.0)])


def test_pairing_takes_out_what_both_share() -> None:
    rng = np.random.default_rng(5)
    ease = rng.random(400)
    one = [Stratum(list((ease < 0.55).astype(float)), 1.0)]
    other = [Stratum(list((ease < 0.50).astype(float)), 1.0)]
    shuffled = [Stratum(list(rng.permutation(other[0].scores)), 1.0)]
    paired, unpaired = paired_difference(one, other), paired_difference(one, shuffled)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.standard_error < 0.5 * unpaired.standard_error
    assert paired.p_value < 0.001 < unpaired.p_value


def test_a_difference_turned_round_changes_its_sign() -> None:
    rng = np.random.default_rng(6)
    one, other = ([Stratum(list(rng.random(30)), 1.0), Stratum(list(rng.random(9)), 2.0)] for _ in range(2))
    forth, back = paired_difference(one, other), paired_difference(other, one)
    assert (forth.value, forth.low, forth.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert forth.p_value == pytest.approx(back.p_value)


def test_a_sign_test_and_the_paired_difference_agree() -> None:
    """Bonett and Price's interval for discordant pairs 14 and 4 of 100, worked by hand."""
    one = [Stratum([1.0] * 14 + [0.0] * 86, 1.0)]
    other = [Stratum([0.0] * 14 + [1.0] * 4 + [0.0] * 82, 1.0)]
    more, less = 15 / 102, 5 / 102
    half_width = 1.959964 * np.sqrt((more + less - (more - less) ** 2) / 102)
    found = paired_difference(one, other)
    assert found.low == pytest.approx(more - less - half_width, abs=1e-6)
    assert found.high == pytest.approx(more - less + half_width, abs=1e-6)


def test_entries_on_different_items_are_not_compared() -> None:
    one, other = [Stratum([1.0, 0.0], 1.0)], [Stratum([1.0], 1.0)]
    with pytest.raises(ValueError, match="task 0: all entries must have the same items"):
        stack([one, other])
    with pytest.raises(ValueError, match="the same tasks"):
        stack([one, one * 2])
    with pytest.raises(ValueError, match="the same clusters"):
        stack([one, [Stratum([1.0, 0.0], 1.0, ["a", "b"])]])


def test_the_bootstrap_has_the_spread_that_theory_wants() -> None:
    rng = np.random.default_rng(2)
    scores = (rng.random((3, 50)) < 0.5).astype(float)
    clusters = np.arange(50) // 5
    for numbers, variance in (
        (None, scores.var(axis=1) / 50),
        (clusters, scores.reshape(3, 10, 5).mean(axis=2).var(axis=1) / 10),
    ):
        drawn = resample_scores([TaskScores(scores, 2.0, numbers)], rng=rng)
        assert drawn.shape == (10_000, 3)
        assert drawn.mean(axis=0) == pytest.approx(scores.mean(axis=1), abs=0.005)
        assert drawn.var(axis=0) == pytest.approx(variance, rel=0.06)
    low, high = np.quantile(drawn[:, 0], [0.025, 0.975])
    found = percentile_interval(scores[0].mean(), drawn[:, 0])
    assert (found.low, found.high) == (low, high)


def test_the_bootstrap_is_paired() -> None:
    """An entry and its copy have the same score in every round."""
    tasks, _ = board(np.random.default_rng(0), np.zeros(1), tasks=2, items=30)
    drawn = resample_scores(
        [TaskScores(np.repeat(task.scores, 2, axis=0), 1.0) for task in tasks], rng=np.random.default_rng(0)
    )
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert drawn[:, 0].std() > 0
