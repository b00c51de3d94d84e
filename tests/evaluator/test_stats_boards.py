"""Win rates, strengths, rank correlation, and what a suite can detect."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from stats_worlds import board

from tiltyard_eval.stats import Stratum, TaskScores
from tiltyard_eval.stats.bradley_terry import fit_strengths, strengths_with_intervals
from tiltyard_eval.stats.correlation import rank_correlation
from tiltyard_eval.stats.paired import paired_difference
from tiltyard_eval.stats.power import TaskSize, measured_differences, planned_difference
from tiltyard_eval.stats.wins import win_rates

NULL = float("nan")


def test_win_rates_by_hand() -> None:
    found = win_rates(np.array([[0.9, 0.5], [0.8, 0.5], [0.1, 0.4]]))
    assert found.wins.tolist() == [[2, 1.5], [1, 1.5], [0, 0]]
    assert found.mean() == pytest.approx([0.875, 0.625, 0.0])
    assert found.geometric_mean(smoothing=0) == pytest.approx([np.sqrt(0.75), np.sqrt(0.375), 0.0])
    assert found.geometric_mean() == pytest.approx(np.sqrt([2.5 * 2 / 9, 1.5 * 2 / 9, 0.25 / 9]))


def test_one_zero_does_not_erase_the_rest() -> None:
    """In 2023 an entry that was last in one scenario of four had a score of 1e-162, below one that was poor in all."""
    scores = np.array([[0.9, 0.9, 0.9, 0.0], *([[level] * 4 for level in (0.6, 0.5, 0.4, 0.3, 0.2)])])
    plain = win_rates(scores).geometric_mean(smoothing=0)
    assert plain[0] == 0 < plain[4]
    smoothed = win_rates(scores).geometric_mean()
    assert smoothed[0] > smoothed[3] > smoothed[4] > smoothed[5] > 0


def test_a_null_is_a_loss_or_is_left_out_and_is_counted() -> None:
    scores = np.array([[0.9, NULL], [0.8, 0.1], [0.7, 0.2]])
    lost, skipped = win_rates(scores), win_rates(scores, nulls="skip")
    assert list(lost.nulls) == list(skipped.nulls) == [1, 0, 0]
    assert lost.mean() == pytest.approx([0.5, 0.5, 0.5])
    assert skipped.mean() == pytest.approx([1.0, 0.25, 0.5])
    assert skipped.opponents.tolist() == [[2, 0], [2, 1], [2, 1]]
    both = win_rates(np.array([[NULL, 0.5], [NULL, 0.6]]))
    assert both.mean() == pytest.approx([0.0, 0.5])
    assert np.isnan(win_rates(np.array([[NULL], [0.1]]), nulls="skip").geometric_mean()).all()


table = st.integers(2, 6).flatmap(
    lambda entries: st.lists(
        st.lists(st.one_of(st.just(NULL), st.integers(0, 5).map(float)), min_size=entries, max_size=entries),
        min_size=1,
        max_size=4,
    ).map(lambda columns: np.array(columns).T)
)


@given(table, st.integers(0, 5), st.integers(0, 3))
def test_a_null_never_pays(scores: np.ndarray, entry: int, scenario: int) -> None:
    entry, scenario = entry % scores.shape[0], scenario % scores.shape[1]
    dropped = scores.copy()
    dropped[entry, scenario] = NULL
    before, after = win_rates(scores), win_rates(dropped)
    assert after.mean()[entry] <= before.mean()[entry] + 1e-12
    assert after.geometric_mean()[entry] <= before.geometric_mean()[entry] + 1e-12


@given(table)
def test_win_rates_are_shares(scores: np.ndarray) -> None:
    found = win_rates(scores)
    assert ((found.mean() >= 0) & (found.mean() <= 1)).all()
    assert ((found.geometric_mean() > 0) & (found.geometric_mean() < 1)).all()
    # The wins of a scenario without nulls are all the games that there are.
    whole = ~np.isnan(scores).any(axis=0)
    games = len(scores) * (len(scores) - 1) / 2
    assert found.wins.sum(axis=0)[whole] == pytest.approx(np.full(whole.sum(), games))


@pytest.mark.parametrize("scores", [np.zeros((0, 2)), np.zeros(3), np.array([[np.inf]])])
def test_what_is_no_table_of_scores_is_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="entries × scenarios"):
        win_rates(scores)


def davidson(theta: np.ndarray, tie: float, games: float) -> tuple[np.ndarray, np.ndarray]:
    """Expected wins and ties of the model, by its definition."""
    strength = np.exp(theta)
    between = tie * np.sqrt(np.outer(strength, strength))
    whole = strength[:, None] + strength[None, :] + between
    wins, ties = games * strength[:, None] / whole, games * between / whole
    np.fill_diagonal(wins, 0.0)
    np.fill_diagonal(ties, 0.0)
    return wins, ties


@pytest.mark.parametrize("tie", [0.0, 0.7])
def test_the_model_is_recovered_from_its_own_games(tie: float) -> None:
    theta = np.array([1.0, 0.2, -0.2, -1.0])
    found = fit_strengths(*davidson(theta, tie, 1e5))
    assert found.log_strength == pytest.approx(theta, abs=1e-3)
    assert found.tie == pytest.approx(tie, abs=1e-3)
    assert found.win_probability(0, 3) == pytest.approx(1 / (1 + np.exp(-2.0)), abs=1e-3)


def test_an_entry_that_wins_everything_has_a_finite_strength() -> None:
    wins = np.array([[0.0, 50, 50], [0, 0, 30], [0, 20, 0]])
    found = fit_strengths(wins, np.zeros((3, 3)))
    assert np.isfinite(found.log_strength).all()
    assert found.log_strength[0] > found.log_strength[1] > found.log_strength[2]
    assert found.log_strength.sum() == pytest.approx(0.0, abs=1e-9)
    more = fit_strengths(wins * 10, np.zeros((3, 3)))
    assert more.log_strength[0] > found.log_strength[0]


def test_nothing_but_ties_makes_all_equal() -> None:
    ties = 20.0 * (1 - np.eye(3))
    found = fit_strengths(np.zeros((3, 3)), ties)
    assert found.log_strength == pytest.approx(np.zeros(3), abs=1e-6)
    assert 1 < found.tie < np.inf


@pytest.mark.slow
@pytest.mark.parametrize("cluster_size", [1, 4])
def test_strength_intervals_cover(cluster_size: int) -> None:
    """The strengths that endlessly many items would give are those of a very long suite."""
    rng = np.random.default_rng(9)
    abilities = np.array([-0.6, 0.0, 0.7])
    endless, _ = board(rng, abilities, tasks=1, items=200_000)
    truth = strengths_with_intervals(endless)[0].log_strength
    covered = []
    for _ in range(400):
        tasks, _ = board(rng, abilities, tasks=4, items=40, cluster_size=cluster_size)
        _, intervals = strengths_with_intervals(tasks)
        covered += [found.low <= theta <= found.high for found, theta in zip(intervals, truth, strict=True)]
    assert 0.92 <= np.mean(covered) <= 0.97


def test_strengths_need_two_entries_and_two_clusters() -> None:
    with pytest.raises(ValueError, match="two entries"):
        strengths_with_intervals([TaskScores(np.ones((1, 3)), 1.0)])
    with pytest.raises(ValueError, match="single cluster"):
        strengths_with_intervals([TaskScores(np.ones((2, 3)), 1.0, np.zeros(3, dtype=np.int64))])


@pytest.mark.parametrize(
    ("wins", "ties"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3))),
        (np.zeros((1, 1)), np.zeros((1, 1))),
        (-np.ones((2, 2)), np.zeros((2, 2))),
        (np.ones((2, 2)), np.array([[0.0, 1.0], [2.0, 0.0]])),
    ],
)
def test_tables_that_count_no_games_are_refused(wins: np.ndarray, ties: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        fit_strengths(wins, ties)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spearman", "kendall"])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("entries", [8, 30])
def test_rank_correlations_cover(kind: str, rho: float, entries: int) -> None:
    """Of a bivariate normal the truth is known: ρ_s = 6/π·asin(ρ/2) and τ = 2/π·asin ρ (Kruskal 1958)."""
    truth = 6 / np.pi * np.arcsin(rho / 2) if kind == "spearman" else 2 / np.pi * np.arcsin(rho)
    rng = np.random.default_rng(10)
    covered = 0
    for _ in range(1000):
        one = rng.standard_normal(entries)
        other = rho * one + np.sqrt(1 - rho**2) * rng.standard_normal(entries)
        found = rank_correlation(list(one), list(other), kind=kind)  # type: ignore[arg-type]
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / 1000 <= 0.99


def test_the_2023_finalists_order_says_next_to_nothing() -> None:
    opened = [0.516, 0.630, 0.207, 0.0, 0.318, 0.239, 1e-130, 0.222]
    hidden = [0.610, 0.321, 0.469, 0.556, 0.384, 0.356, 0.348, 0.0]
    found = rank_correlation(opened, hidden)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(opened, hidden).statistic)
    assert found.low < 0 < found.high
    assert found.high - found.low > 1.2


def test_perfect_agreement_of_few_entries_is_not_certain() -> None:
    found = rank_correlation([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])
    assert found is not None
    assert found.value == found.high == 1.0
    assert found.low < 0.9


def test_correlations_that_do_not_exist() -> None:
    assert rank_correlation([1.0] * 5, [1, 2, 3, 4, 5]) is None
    with pytest.raises(ValueError, match="at least 5"):
        rank_correlation([1, 2], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        rank_correlation([1, 2, 3, 4, NULL], [1, 2, 3, 4, 5])


def test_the_planned_difference_is_found_as_often_as_promised() -> None:
    """Two entries that differ on 30 % of the items, by the detectable difference: the test finds it in 80 of 100."""
    difference = planned_difference([TaskSize(60, 1.0)] * 8, discordance=0.3)
    rng = np.random.default_rng(11)
    found = 0
    for _ in range(600):
        draws = rng.random((8, 60))
        better = (draws < (0.3 + difference) / 2).astype(float)
        worse = ((draws >= (0.3 + difference) / 2) & (draws < 0.3)).astype(float)
        one, other = ([Stratum(list(row), 1.0) for row in rows] for rows in (better, worse))
        found += paired_difference(one, other).p_value < 0.05
    assert 0.75 <= found / 600 <= 0.86


def test_planned_differences_by_hand() -> None:
    reach = (1.959964 + 0.841621) ** 2 / 480
    found = planned_difference([TaskSize(60, 1.0)] * 8)
    assert found == pytest.approx(np.sqrt(reach * 0.5 / (1 + reach)), abs=1e-6)
    assert found == pytest.approx(0.0897, abs=0.0005)
    repeated = planned_difference([TaskSize(60, 1.0, clusters=10)] * 8, intraclass_correlation=1.0)
    assert repeated == pytest.approx(planned_difference([TaskSize(10, 1.0)] * 8))


@given(st.integers(1, 500), st.floats(0.01, 1.0), st.integers(1, 5))
def test_planned_differences_shrink_with_items_and_agreement(items: int, discordance: float, factor: int) -> None:
    found = planned_difference([TaskSize(items, 1.0)], discordance=discordance)
    assert 0 < found <= 1
    assert planned_difference([TaskSize(items * factor, 1.0)], discordance=discordance) <= found
    assert planned_difference([TaskSize(items, 1.0)], discordance=discordance / factor) <= found + 1e-12


def test_measured_differences_are_those_of_the_pairs() -> None:
    tasks, _ = board(np.random.default_rng(12), np.zeros(3), tasks=4, items=50)
    found = measured_differences(tasks)
    strata = [[Stratum(list(task.scores[entry]), 1.0) for task in tasks] for entry in range(3)]
    errors = [paired_difference(strata[i], strata[j]).standard_error for i, j in itertools.combinations(range(3), 2)]
    assert found == pytest.approx(2.801585 * np.array(errors), rel=1e-6)
    with pytest.raises(ValueError, match="at least two entries"):
        measured_differences([TaskScores(np.ones((1, 3)), 1.0)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"discordance": 0.0},
        {"intraclass_correlation": 2.0},
        {"power": 1.0},
        {"tasks": [TaskSize(0, 1.0)]},
        {"tasks": [TaskSize(5, 1.0, clusters=6)]},
        {"tasks": []},
    ],
)
def test_impossible_plans_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|every task needs items|probabilities"):
        planned_difference(**({"tasks": [TaskSize(5, 1.0)]} | wrong))  # type: ignore[arg-type]
