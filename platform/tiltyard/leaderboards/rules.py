"""The rules of scoring: from the item scores of everybody on a board to the number that ranks them.

| rule | an entry's score |
|---|---|
| `weighted_mean` | Σ share · task mean |
| `normalised` | Σ share · (task mean − baseline's mean) / (ceiling − baseline's mean) |
| `geometric_mean_of_win_rates` | in each suite the geometric mean over scenarios of win rates; Σ suite share · that |

The first two depend on the entry alone, or on it and the baseline. The third depends on who else is on the board.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tiltyard_eval.stats import Interval, Stratum, TaskScores
from tiltyard_eval.stats.bootstrap import percentile_interval, resample_task_means
from tiltyard_eval.stats.ranks import Ranking, rank_entries, rank_resampled
from tiltyard_eval.stats.scores import normalised_score, score_entries
from tiltyard_eval.stats.types import FloatArray, IntArray
from tiltyard_eval.stats.wins import Nulls, win_rates

ROUNDS = 10_000
LARGE_BOARD, LARGE_BOARD_ROUNDS = 300, 2_000  # work grows with the square of the entries
WIN_ROUNDS = 2_000  # every round ranks all entries in all scenarios
SEED = 20231


class ScoringError(ValueError):
    """The rule cannot be applied to this board; the message tells the organiser why."""


@dataclass(frozen=True)
class Question:
    """One task of one suite, with what everybody on the board scored on its items.

    Attributes:
        suite: Name of the suite.
        is_hidden: Whether that suite is hidden.
        task, family: As the suite names them.
        share: The task's share in the ranking score; the shares of a board add up to 1.
        part_share: Its share in the open or in the hidden score; those of each part add up to 1.
        scores: Shape (entries, items), each 0..1.
        clusters: Shape (items,), the number of each item's skeleton; None when every item was drawn apart.
    """

    suite: str
    is_hidden: bool
    task: str
    family: str
    share: float
    part_share: float
    scores: FloatArray
    clusters: IntArray | None = None

    def stratum(self, entry: int, weight: float) -> Stratum:
        clusters = None if self.clusters is None else self.clusters.tolist()
        return Stratum([float(score) for score in self.scores[entry]], weight, clusters)


@dataclass(frozen=True)
class Scored:
    """Everybody's score by a rule with its interval, and who is separated from whom."""

    scores: Sequence[Interval]
    ranking: Ranking


def apply_rule(scoring: Mapping[str, object], questions: Sequence[Question], base: int | None) -> Scored:
    """Score and rank a board of at least one entry.

    Args:
        scoring: As `ScoringEntry.stored()`.
        questions: All tasks of the active suites.
        base: Which entry is the baseline of the rule `normalised`; None when it is not on the board.

    Raises:
        ScoringError: When the rule cannot be applied.
    """
    ranked = [question for question in questions if question.share > 0]
    if scoring["rule"] == "normalised":
        return _normalised(ranked, base, _numbers(scoring["ceilings"]))
    if scoring["rule"] == "geometric_mean_of_win_rates":
        return _win_rates(ranked, scoring)
    tasks = [TaskScores(question.scores, question.share, question.clusters) for question in ranked]
    return Scored(score_entries(tasks), _rank(tasks))


def _rank(tasks: Sequence[TaskScores]) -> Ranking:
    rounds = ROUNDS if len(tasks[0].scores) <= LARGE_BOARD else LARGE_BOARD_ROUNDS
    return rank_entries(tasks, seed=SEED, rounds=rounds)


def _normalised(ranked: Sequence[Question], base: int | None, ceilings: Mapping[str, float]) -> Scored:
    if base is None:
        raise ScoringError("The baseline that counts as 0 has not been scored yet.")
    tops = [ceilings.get(question.task, 1.0) for question in ranked]
    reference = [question.stratum(base, question.share) for question in ranked]
    scores = []
    try:
        for entry in range(len(ranked[0].scores)):
            own = [question.stratum(entry, question.share) for question in ranked]
            scores.append(normalised_score(own, reference, ceilings=tops)[0])
    except ValueError as error:
        named = ", ".join(
            f"{question.task} ({100 * question.scores[base].mean():.1f} % of {100 * top:.1f} %)"
            for question, top in zip(ranked, tops, strict=True)
        )
        raise ScoringError(
            f"Between the baseline and the ceiling there is no room in some task: {error}. Tasks: {named}."
        ) from error
    # The score is linear in the task means, so the board ranks as one whose weights are divided by the room.
    tasks = [
        TaskScores(question.scores, question.share / (top - float(question.scores[base].mean())), question.clusters)
        for question, top in zip(ranked, tops, strict=True)
    ]
    return Scored(scores, _rank(tasks))


def _win_rates(ranked: Sequence[Question], scoring: Mapping[str, object]) -> Scored:
    by_family = scoring["scenario"] == "family"
    scenarios = [(question.suite, question.family if by_family else question.task) for question in ranked]
    tasks = [TaskScores(question.scores, question.share, question.clusters) for question in ranked]
    rounds = list(resample_task_means(tasks, rng=np.random.default_rng(SEED), rounds=WIN_ROUNDS))
    means = np.stack([question.scores.mean(axis=1) for question in ranked], axis=1)  # (entries, tasks)
    shares = np.array([question.share for question in ranked])
    nulls: Nulls = "skip" if scoring["nulls"] == "skip" else "loss"
    smoothing = float(str(scoring["smoothing"]))

    def score(table: FloatArray) -> FloatArray:
        return geometric_score(table, scenarios, shares, nulls=nulls, smoothing=smoothing)

    values = score(means)
    resampled = np.stack([score(np.stack([task[row] for task in rounds], axis=1)) for row in range(WIN_ROUNDS)])
    intervals = [percentile_interval(float(value), resampled[:, entry]) for entry, value in enumerate(values)]
    return Scored(intervals, rank_resampled(values, resampled))


def geometric_score(
    means: FloatArray,
    scenarios: Sequence[tuple[str, str]],
    shares: FloatArray,
    *,
    nulls: Nulls = "loss",
    smoothing: float = 0.5,
) -> FloatArray:
    """The 2023 LLM Efficiency Challenge's score: geometric means of win rates, averaged over suites.

    Args:
        means: Task means, shape (entries, tasks); NaN where an entry has no score.
        scenarios: For each task its suite and its scenario; tasks of one scenario are averaged by their shares first.
        shares: Of each task in the ranking score, shape (tasks,). A suite counts as its tasks do together, and within
            it a scenario's win rate enters the geometric mean with its share as the exponent.
        nulls: `loss`: an entry without a score on any task of a scenario loses there to all that have one. `skip`: it
            is not compared there.
        smoothing: Of win rates within the geometric mean; with 0 a scenario in which an entry beats nobody makes its
            suite's score 0, as in 2023.

    Returns:
        Shape (entries,), 0..1; an entry that was compared nowhere in a suite gets 0 for it.
    """
    total = np.zeros(len(means))
    for suite in dict.fromkeys(suite for suite, _ in scenarios):
        names = list(dict.fromkeys(name for of, name in scenarios if of == suite))
        members = [[i for i, one in enumerate(scenarios) if one == (suite, name)] for name in names]
        table = np.stack([np.average(means[:, m], axis=1, weights=shares[m]) for m in members], axis=1)
        weights = np.array([shares[m].sum() for m in members])
        rates = win_rates(table, nulls=nulls).geometric_mean(smoothing=smoothing, weights=weights)
        total += weights.sum() * np.nan_to_num(rates, nan=0.0)
    return np.asarray(total / shares.sum())


def _numbers(value: object) -> dict[str, float]:
    return {str(name): float(number) for name, number in value.items()} if isinstance(value, Mapping) else {}
