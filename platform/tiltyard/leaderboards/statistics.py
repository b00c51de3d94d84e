"""Everything that a board says beyond single scores: computed from the item scores of all its entries at once.

Pure functions over arrays. What they give is stored as JSON (`refresh`), shown by the board and exported by the API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tiltyard.leaderboards.documents import DIGITS, BoardDocument, EntryStatistics, Excess, Range, Twins
from tiltyard.leaderboards.rules import Question, ScoringError, apply_rule
from tiltyard_eval.stats import TaskScores
from tiltyard_eval.stats.bradley_terry import strengths_with_intervals
from tiltyard_eval.stats.correlation import MIN_ENTRIES, rank_correlation
from tiltyard_eval.stats.gap import MARGIN, OverfitTest, overfit_tests_of
from tiltyard_eval.stats.power import TaskSize, measured_differences, planned_difference
from tiltyard_eval.stats.ranks import Ranking
from tiltyard_eval.stats.wins import win_rates

# Every two entries play a game on every item, held in memory at once: 100 entries and 960 items take 0.25 GB.
STRENGTHS_ENTRIES_MAX = 100


@dataclass(frozen=True)
class Entrant:
    """Who is on the board, in the order of the questions' rows."""

    run_id: str
    name: str
    is_baseline: bool
    is_reference: bool
    twins: Twins | None = None


def board_statistics(
    entrants: Sequence[Entrant], questions: Sequence[Question], scoring: Mapping[str, object]
) -> BoardDocument:
    """Compute all statistics of a board of at least one entry and at least one task that counts."""
    references = [place for place, entrant in enumerate(entrants) if entrant.is_reference]
    base = next((place for place in references if entrants[place].name == scoring.get("base")), None)
    problem = ""
    try:
        scored = apply_rule(scoring, questions, base)
    except ScoringError as error:
        problem = str(error)
        scored = apply_rule({"rule": "weighted_mean"}, questions, None)
    lows, highs = _possible_ranks(scored.ranking, [not entrant.is_baseline for entrant in entrants])
    excesses = _excesses(entrants, questions, references)
    rates = _win_rates(questions)
    strengths = _strengths(questions)
    return BoardDocument(
        entries={
            entrant.run_id: EntryStatistics(
                score=Range.of(scored.scores[place]),
                rank_low=lows[place],
                rank_high=highs[place],
                group=int(scored.ranking.group[place]),
                excess=excesses.get(place),
                win_rate=rates[place],
                strength=strengths[place],
                twins=entrant.twins,
            )
            for place, entrant in enumerate(entrants)
        },
        correlation=_correlation(questions),
        detectable=_detectable(questions),
        references=[entrants[place].name for place in references],
        margin=MARGIN,
        problem=problem,
    )


def _possible_ranks(ranking: Ranking, is_ranked: Sequence[bool]) -> tuple[list[int | None], list[int | None]]:
    """From 1 + the participants separated above, to the participants less those separated below."""
    counted = np.array(is_ranked)
    above = ranking.separated[counted].sum(axis=0)
    below = ranking.separated[:, counted].sum(axis=1)
    lows = [int(1 + above[place]) if ranked else None for place, ranked in enumerate(is_ranked)]
    highs = [int(counted.sum() - below[place]) if ranked else None for place, ranked in enumerate(is_ranked)]
    return lows, highs


def _part(questions: Sequence[Question], *, is_hidden: bool) -> list[Question]:
    return [question for question in questions if question.is_hidden is is_hidden and question.part_share > 0]


def _excesses(
    entrants: Sequence[Entrant], questions: Sequence[Question], references: Sequence[int]
) -> dict[int, Excess]:
    open_part, hidden_part = _part(questions, is_hidden=False), _part(questions, is_hidden=True)
    tested = [place for place in range(len(entrants)) if place not in references]
    if not (open_part and hidden_part and references and tested):
        return {}
    tests = overfit_tests_of(_tasks(open_part), _tasks(hidden_part), np.array(tested), np.array(references))
    names = [entrants[place].name for place in references]
    return {place: _excess(test, names) for place, test in zip(tested, tests, strict=True)}


def _excess(test: OverfitTest, names: Sequence[str]) -> Excess:
    return Excess(
        value=round(test.excess.value, DIGITS),
        low=round(test.excess.low, DIGITS),
        high=round(test.excess.high, DIGITS),
        baseline=names[test.nearest],
        p_value=test.p_value,
        flagged=test.flagged,
    )


def _tasks(part: Sequence[Question]) -> list[TaskScores]:
    return [TaskScores(question.scores, question.part_share, question.clusters) for question in part]


def _counting(questions: Sequence[Question]) -> list[TaskScores]:
    """What enters the ranking, with its shares."""
    return [
        TaskScores(question.scores, question.share, question.clusters) for question in questions if question.share > 0
    ]


def _win_rates(questions: Sequence[Question]) -> list[float | None]:
    tasks = _counting(questions)
    table = np.stack([task.scores.mean(axis=1) for task in tasks], axis=1)  # (entries, tasks)
    weights = np.array([task.weight for task in tasks])
    rates = win_rates(table).mean(weights=weights)
    return [None if np.isnan(rate) else round(float(rate), DIGITS) for rate in rates]


def _strengths(questions: Sequence[Question]) -> list[Range | None]:
    tasks = [task for task in _counting(questions) if task.scores.shape[1] > 1]
    entries = len(questions[0].scores)
    if not 2 <= entries <= STRENGTHS_ENTRIES_MAX or not tasks:
        return [None] * entries
    return [Range.of(found) for found in strengths_with_intervals(tasks)[1]]


def _scores(part: Sequence[Question]) -> list[float]:
    means = np.stack([question.scores.mean(axis=1) for question in part])  # (tasks, entries)
    shares = np.array([question.part_share for question in part])
    return [float(score) for score in shares @ means / shares.sum()]


def _correlation(questions: Sequence[Question]) -> Range | None:
    open_part, hidden_part = _part(questions, is_hidden=False), _part(questions, is_hidden=True)
    if not open_part or not hidden_part or len(questions[0].scores) < MIN_ENTRIES:
        return None
    found = rank_correlation(_scores(open_part), _scores(hidden_part))
    return Range.of(found) if found else None


def _detectable(questions: Sequence[Question]) -> dict[str, float]:
    parts = {
        "ranking": _counting(questions),
        "open": _tasks(_part(questions, is_hidden=False)),
        "hidden": _tasks(_part(questions, is_hidden=True)),
    }
    return {name: round(_smallest_difference(tasks), DIGITS) for name, tasks in parts.items() if tasks}


def _smallest_difference(tasks: Sequence[TaskScores]) -> float:
    if tasks[0].scores.shape[0] > 1:
        return float(np.median(measured_differences(tasks)))
    return planned_difference([TaskSize(task.scores.shape[1], task.weight) for task in tasks])
