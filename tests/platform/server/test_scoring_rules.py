"""The rules of scoring over item scores made for the purpose."""

import numpy as np
import pytest

from tiltyard.leaderboards.rules import Question, ScoringError, apply_rule, geometric_score
from tiltyard_eval.stats.types import FloatArray

SCENARIOS = [("open", "mmlu"), ("open", "gsm8k"), ("hidden", "samsum"), ("hidden", "math")]
SHARES = np.array([1 / 6, 1 / 6, 1 / 3, 1 / 3])  # a third open, two thirds hidden, as in 2023
WIN_RATES = {"rule": "geometric_mean_of_win_rates", "scenario": "task", "nulls": "loss", "smoothing": 0.5}


def right(*shares: float, items: int = 100) -> FloatArray:
    """Scores of entries that get these shares of the items right, all the same first ones."""
    return np.array([[float(item < share * items) for item in range(items)] for share in shares])


def question(task: str, scores: FloatArray, share: float, *, is_hidden: bool = True, family: str = "") -> Question:
    suite = "hidden" if is_hidden else "open"
    return Question(suite, is_hidden, task, family or task, share, share, scores)


def test_the_weighted_mean_and_who_is_separated() -> None:
    questions = [question("a", right(0.9, 0.88, 0.2), 0.25), question("b", right(0.8, 0.8, 0.1), 0.75)]
    scored = apply_rule({"rule": "weighted_mean"}, questions, None)
    assert [score.value for score in scored.scores] == pytest.approx([0.825, 0.82, 0.125])
    assert scored.ranking.group.tolist() == [1, 1, 2]


def test_normalised_puts_the_baseline_at_0_and_the_ceiling_at_1() -> None:
    questions = [question("a", right(0.2, 0.8, 0.5), 0.5), question("b", right(0.4, 1.0, 0.4), 0.5)]
    scoring = {"rule": "normalised", "base": "base", "ceilings": {"a": 0.8}}
    scored = apply_rule(scoring, questions, 0)
    assert [score.value for score in scored.scores] == pytest.approx([0.0, 1.0, 0.25])
    assert scored.ranking.group.tolist() == [3, 1, 2]


def test_normalised_ranks_by_its_own_scores_not_by_the_mean() -> None:
    # The second gains 20 of 30 points of room, the first 25 of 80; the plain mean prefers the first.
    questions = [question("easy", right(0.7, 0.9, 0.7), 0.5), question("hard", right(0.45, 0.2, 0.2), 0.5)]
    scored = apply_rule({"rule": "normalised", "base": "x", "ceilings": {}}, questions, 2)
    assert scored.scores[1].value > scored.scores[0].value
    assert (scored.ranking.scores[1] > scored.ranking.scores[0]).item()


@pytest.mark.parametrize(
    ("ceilings", "base", "message"),
    [
        ({"a": 0.3}, 0, r"no room in some task: .* ceiling 0.3 .* Tasks: a \(50.0 % of 30.0 %\)"),
        ({}, None, "The baseline that counts as 0 has not been scored yet."),
    ],
)
def test_normalised_without_room_or_baseline_says_so(
    ceilings: dict[str, float], base: int | None, message: str
) -> None:
    with pytest.raises(ScoringError, match=message):
        apply_rule(
            {"rule": "normalised", "base": "x", "ceilings": ceilings}, [question("a", right(0.5, 0.6), 1.0)], base
        )


def test_win_rates_of_three_entries_by_hand() -> None:
    means = np.array([[0.9, 0.5, 0.4, 0.3], [0.8, 0.6, 0.3, 0.2], [0.1, 0.1, 0.1, 0.1]])
    # (wins + ½) / 3: best 5/6, middle 1/2, last 1/6.
    found = geometric_score(means, SCENARIOS, SHARES)
    expected = [
        np.sqrt(5 / 6 * 1 / 2) / 3 + 5 / 6 * 2 / 3,
        np.sqrt(1 / 2 * 5 / 6) / 3 + 1 / 2 * 2 / 3,
        1 / 6,
    ]
    assert found == pytest.approx(expected)


def test_in_2023_one_scenario_without_a_win_made_all_others_worthless() -> None:
    means = np.array([[0.9, 0.9, 0.9, 0.0], [0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1]])
    original = geometric_score(means, SCENARIOS, SHARES, smoothing=0.0)
    smoothed = geometric_score(means, SCENARIOS, SHARES)
    assert original[0] == pytest.approx(1 / 3)  # the open part alone is left of a score of nearly one
    assert smoothed[0] == pytest.approx(5 / 6 / 3 + np.sqrt(5 / 6 * 1 / 6) * 2 / 3)


@pytest.mark.parametrize(("nulls", "leaving_out_pays"), [("loss", False), ("skip", True)])
def test_a_scenario_without_a_score_is_a_loss_or_is_skipped(nulls: str, leaving_out_pays: bool) -> None:
    answered = np.array([[0.9, 0.9, 0.9, 0.0], [0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1]])
    left_out = answered.copy()
    left_out[0, 3] = np.nan
    before, after = (geometric_score(m, SCENARIOS, SHARES, nulls=nulls)[0] for m in (answered, left_out))  # type: ignore[arg-type]
    assert bool(after > before) is leaving_out_pays
    assert np.isfinite(after)


def test_an_entry_without_any_score_gets_nothing_and_hurts_nobody() -> None:
    means = np.array([[0.9] * 4, [0.5] * 4, [np.nan] * 4])
    assert geometric_score(means, SCENARIOS, SHARES, nulls="skip").tolist() == pytest.approx([0.75, 0.25, 0.0])
    assert geometric_score(means, SCENARIOS, SHARES, nulls="loss")[2] == pytest.approx(1 / 6)
    assert geometric_score(means, SCENARIOS, SHARES, nulls="loss", smoothing=0.0)[2] == 0.0


def test_an_entry_alone_is_scored() -> None:
    alone = [question("a", right(0.5), 1.0)]
    assert apply_rule(WIN_RATES, alone, None).scores[0].value == 0.0  # whom should it have beaten
    assert apply_rule({"rule": "weighted_mean"}, alone, None).ranking.group.tolist() == [1]


def test_tasks_of_one_family_are_one_scenario() -> None:
    scores = [right(1.0, 0.0), right(0.0, 0.9), right(1.0, 0.0)]
    families = ["bigbench", "bigbench", "mmlu"]
    questions = [
        question(f"t{order}", one, 1 / 3, family=family)
        for order, (one, family) in enumerate(zip(scores, families, strict=True))
    ]
    by_family = apply_rule(WIN_RATES | {"scenario": "family"}, questions, None)
    by_task = apply_rule(WIN_RATES, questions, None)
    assert by_family.scores[0].value == pytest.approx(0.75)  # better in the mean of the family, and in the other
    assert by_task.scores[0].value == pytest.approx((0.75 * 0.25 * 0.75) ** (1 / 3))


def test_win_rates_separate_who_differs_and_not_who_is_equal() -> None:
    chance = np.random.default_rng(7)
    ability = [0.9, 0.89, 0.5, 0.1]
    questions = [
        question(f"t{order}", (chance.random((4, 120)) < np.array(ability)[:, None]).astype(float), 0.25)
        for order in range(4)
    ]
    ranking = apply_rule(WIN_RATES, questions, None).ranking
    assert not ranking.separated[0, 1]
    assert not ranking.separated[1, 0]
    assert ranking.separated[0, 2]
    assert ranking.separated[2, 3]
