"""The ranking score and the gap, from item scores."""

import numpy as np
import pytest

from tiltyard.competitions.models import Suite
from tiltyard.leaderboards.ranking import RankingScores, SuiteScores, rank_suites
from tiltyard.submissions.models import Run
from tiltyard_eval.stats import Stratum


def scores(visibility: str, weight: float, *tasks: tuple[list[float], float]) -> SuiteScores:
    suite = Suite(visibility=visibility, weight=weight, sha256=visibility)
    return SuiteScores(suite, [Stratum(items, task_weight) for items, task_weight in tasks])


def items(right: int, wrong: int) -> list[float]:
    return [1.0] * right + [0.0] * wrong


def test_only_weighted_suites_enter_the_ranking() -> None:
    ranking = rank_suites(
        [scores("open", 0, (items(90, 10), 1)), scores("hidden", 1, (items(30, 70), 1), (items(50, 50), 3))]
    )
    assert ranking.score.value == pytest.approx((0.3 + 3 * 0.5) / 4)
    assert ranking.open is not None
    assert ranking.hidden is not None
    assert ranking.open.value == pytest.approx(0.9)
    assert ranking.hidden == ranking.score


def test_suites_share_by_weight_whatever_their_tasks_weigh() -> None:
    ranking = rank_suites([scores("open", 1, (items(1, 0), 50)), scores("hidden", 2, (items(0, 1), 1))])
    assert ranking.score.value == pytest.approx(1 / 3)


def test_the_gap_is_open_minus_hidden_with_its_interval() -> None:
    ranking = rank_suites([scores("open", 0, (items(80, 20), 1)), scores("hidden", 1, (items(40, 60), 1))])
    assert ranking.gap is not None
    assert ranking.gap.value == pytest.approx(0.4)
    # The normal approximation: the variances of two independent shares add.
    half_width = 1.96 * np.sqrt(0.8 * 0.2 / 100 + 0.4 * 0.6 / 100)
    assert ranking.gap.low == pytest.approx(0.4 - half_width, abs=0.015)
    assert ranking.gap.high == pytest.approx(0.4 + half_width, abs=0.015)


def test_the_same_items_give_the_same_intervals() -> None:
    results = [scores("open", 1, (items(30, 70), 1)), scores("hidden", 1, (items(10, 90), 1))]
    assert rank_suites(results) == rank_suites(results)


def test_a_gap_over_few_items_is_in_doubt_even_when_they_all_agree() -> None:
    gap = rank_suites([scores("open", 1, (items(9, 0), 1)), scores("hidden", 1, (items(0, 9), 1))]).gap
    assert gap is not None
    assert gap.value == gap.high == 1
    assert 0.5 < gap.low < 0.9


def test_without_a_hidden_suite_there_is_no_gap() -> None:
    ranking = rank_suites([scores("open", 1, (items(3, 1), 1))])
    assert (ranking.hidden, ranking.gap) == (None, None)
    fields = ranking.run_fields()
    assert (fields["score"], fields["open_score"], fields["hidden_score"], fields["gap_low"]) == (
        0.75,
        0.75,
        None,
        None,
    )


def test_fields_are_columns_of_a_run() -> None:
    ranking: RankingScores = rank_suites([scores("open", 1, (items(3, 1), 1)), scores("hidden", 1, (items(1, 3), 1))])
    columns = {field.name for field in Run._meta.get_fields()}
    assert set(ranking.run_fields()) <= columns
    assert len(ranking.run_fields()) == 12


def test_no_weight_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="weights"):
        rank_suites([scores("open", 0, (items(3, 1), 1))])
