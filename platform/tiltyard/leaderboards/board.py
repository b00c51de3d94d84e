"""The leaderboard of one track: the best run of each participant, and the baselines among them.

Scores come from the runs, statistics from `BoardStatistics`, where a job keeps them; a board takes a fixed number of
queries however many entries it has. Pages and API take it from `kept.py`, which does not make it anew without need.
"""

import math
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.db.models import BigIntegerField, TextField
from django.db.models.functions import Cast
from pydantic import ValidationError

from tiltyard.competitions.columns import COLUMNS, Column
from tiltyard.competitions.models import Competition, Suite, Track
from tiltyard.competitions.reading import active_suites_of
from tiltyard.leaderboards.documents import BoardDocument, EntryStatistics
from tiltyard.leaderboards.entrants import entrants
from tiltyard.leaderboards.feedback import Feedback, Shares, feedback_now, withhold
from tiltyard.leaderboards.figures import columns_of, figures
from tiltyard.leaderboards.keys import fingerprint
from tiltyard.leaderboards.models import BoardStatistics
from tiltyard.leaderboards.standings import Standing
from tiltyard.statements import Given, Statement
from tiltyard.submissions.models import Run

WEIGHTED_MEAN = "weighted_mean"
_FLAGGED = Statement(
    lambda: BoardStatistics.objects.filter(track=Given("track", BigIntegerField())).only("track_id", "flagged")
)


class Shown(NamedTuple):
    """A number as a board shows it, 0..1 or −1..1; without an interval where the Ladder publishes it."""

    value: float
    low: float | None = None
    high: float | None = None


class Entry(NamedTuple):
    """One row. Equal scores share a rank; an organiser's entry stands in its place but has no rank.

    `is_baseline` says that an organiser handed it in, `is_reference` that gaps are compared with it. `mean` is the
    weighted mean, `score` what ranks: the same unless the competition has another rule. `figures` are those of the
    track's columns, by name; in a track that is ranked by one, who was not measured or has too low a score has no rank.
    """

    rank: int | None
    is_tied: bool
    run_id: uuid.UUID
    name: str
    owner_id: int
    owner_name: str
    is_baseline: bool
    is_reference: bool
    score: Shown
    mean: Shown
    open: Shown | None
    hidden: Shown | None
    gap: Shown | None  # open − hidden: what an entry loses on questions that nobody could train on
    statistics: EntryStatistics | None
    submitted_at: datetime
    figures: Mapping[str, float | None]

    @property
    def is_flagged(self) -> bool:
        return bool(self.statistics and self.statistics.excess and self.statistics.excess.flagged)


@dataclass(frozen=True)
class Board:
    """A board as one viewer sees it.

    Attributes:
        rule: What `score` is now: by the competition's rule, or the weighted mean in its place.
        columns: What the track shows beside the score.
        ranked_by: The column that ranks, or None where the score does.
        score_floor: With `ranked_by`, the least mean that an entry needs for a rank.
        feedback: What is shown of hidden scores.
        statistics: None while they are withheld, or not computed since the last change.
        is_waiting: Whether statistics will be there soon.
    """

    competition: Competition
    track: Track
    suites: Sequence[Suite]
    entries: Sequence[Entry]
    rule: str
    feedback: Feedback
    statistics: BoardDocument | None
    is_waiting: bool
    made_at: datetime
    columns: Sequence[Column] = ()
    ranked_by: Column | None = None
    score_floor: float = 0.0


@dataclass(frozen=True)
class _Row:
    standing: Standing
    statistics: EntryStatistics | None
    figures: Mapping[str, float | None]


def leaderboard(competition: Competition, track: Track, *, now: datetime, is_organiser: bool = False) -> Board:
    """Rank a track, in at most four queries.

    Of a participant the run with the best weighted mean counts, of equals the first; of the baselines the best run of
    each name. In a track that is ranked by a column it is the run with the best figure. Organisers see hidden scores
    also while they are withheld from everybody else.
    """
    suites = active_suites_of(competition)
    feedback = feedback_now(competition, now, is_organiser=is_organiser)
    return board_of(competition, track, suites, feedback, now)


def board_of(
    competition: Competition,
    track: Track,
    suites: Sequence[Suite],
    feedback: Feedback,
    now: datetime,
    *,
    standings: Sequence[Standing] | None = None,
) -> Board:
    """The same with what the caller knows already, in at most two queries; with the entrants, in one."""
    track.competition = competition
    standings = entrants(track, suites, feedback) if standings is None else standings
    document = _document(track, suites, standings) if standings and feedback == Feedback.FULL else None
    shares = Shares.of(suites)
    columns = columns_of(track.columns)
    shown = [withhold(one, feedback, shares, one.ladder) for one in standings]
    found = document.entries if document else {}
    rows = [_Row(one, found.get(str(one.run_id)), figures(one, columns)) for one in shown]
    rule = competition.scoring["rule"]
    is_by_rule = rule != WEIGHTED_MEAN and document is not None and not document.problem
    if is_by_rule:
        # Stable, so that of equals the one with the better mean, then the earlier, stays before.
        rows.sort(key=lambda row: -row.statistics.score.value if row.statistics else 1.0)
    scores = {row.standing.run_id: _score(row, is_by_rule=is_by_rule) for row in rows}
    ranked_by = COLUMNS[track.rank_by["column"]] if track.rank_by else None
    floor = float(track.rank_by["min_score"]) if track.rank_by else 0.0
    if ranked_by is None:
        ranking = {key: score.value for key, score in scores.items()}
    else:
        ranking = _by_figure(rows, ranked_by, floor)
        rows.sort(key=lambda row: (-ranking.get(row.standing.run_id, -math.inf), -(row.standing.score or 0.0)))
    return Board(
        competition=competition,
        track=track,
        suites=suites,
        entries=_ranked(competition, rows, scores, ranking),
        rule=rule if is_by_rule else WEIGHTED_MEAN,
        feedback=feedback,
        statistics=document,
        is_waiting=bool(standings) and feedback == Feedback.FULL and document is None,
        made_at=now,
        columns=columns,
        ranked_by=ranked_by,
        score_floor=floor,
    )


def _by_figure(rows: Sequence[_Row], column: Column, floor: float) -> dict[uuid.UUID, float]:
    """What ranks, more being better, of the runs that were measured and have the score that the track asks for."""
    sign = 1.0 if column.more_is_better else -1.0
    return {
        row.standing.run_id: sign * found
        for row in rows
        if (found := row.figures[column.name]) is not None
        and row.standing.score is not None
        and row.standing.score >= floor
    }


def is_flagged(run: Run, now: datetime, *, is_organiser: bool = False) -> bool:
    """Whether the board marks the run's gap, as of its last computation; never where that may not be shown."""
    if feedback_now(run.submission.competition, now, is_organiser=is_organiser) != Feedback.FULL:
        return False
    stored = _FLAGGED.first(track=run.submission.track_id)
    return stored is not None and str(run.pk) in stored.flagged


def _document(track: Track, suites: Sequence[Suite], standings: Sequence[Standing]) -> BoardDocument | None:
    """The statistics of these very entries, or None. What an older version stored is none: it will be written anew."""
    # As text: pydantic reads a megabyte of it in half of the time that Python's own reader and it would take together.
    as_text = Cast("document", TextField())
    found = BoardStatistics.objects.filter(track=track).values_list("fingerprint", as_text).first()
    if found is None or found[0] != fingerprint(track, suites, standings):
        return None
    try:
        return BoardDocument.model_validate_json(found[1])
    except ValidationError:
        return None


def _ranked(
    competition: Competition,
    rows: Sequence[_Row],
    scores: Mapping[uuid.UUID, Shown],
    ranking: Mapping[uuid.UUID, float],
) -> list[Entry]:
    """Entries in the order of their rows, best first: competition ranking, 1 2 2 4; no rank without a `ranking`."""
    ranks = [one for one in (row.standing for row in rows) if not one.is_baseline and one.run_id in ranking]
    times = Counter(ranking[one.run_id] for one in ranks)
    entries: list[Entry] = []
    ranked = 0
    rank_of: dict[float, int] = {}
    for row in rows:
        one = row.standing
        value = None if one.is_baseline else ranking.get(one.run_id)
        rank = None
        if value is not None:
            ranked += 1
            rank = rank_of.setdefault(value, ranked)
        score = scores[one.run_id]
        entries.append(
            Entry(
                rank=rank,
                is_tied=value is not None and times[value] > 1,
                run_id=one.run_id,
                name=one.name,
                owner_id=one.owner_id,
                owner_name=one.owner_name,
                is_baseline=one.is_baseline,
                is_reference=one.is_baseline and competition.is_reference(one.name),
                score=score,
                mean=interval(one.score, one.score_low, one.score_high) or score,
                open=interval(one.open_score, one.open_low, one.open_high),
                hidden=interval(one.hidden_score, one.hidden_low, one.hidden_high),
                gap=interval(one.gap, one.gap_low, one.gap_high),
                statistics=row.statistics,
                submitted_at=one.submitted_at,
                figures=row.figures,
            )
        )
    return entries


def _score(row: _Row, *, is_by_rule: bool) -> Shown:
    if is_by_rule and row.statistics:
        return Shown(row.statistics.score.value, row.statistics.score.low, row.statistics.score.high)
    one = row.standing
    score = interval(one.score, one.score_low, one.score_high)
    if score is None:
        raise ValueError(f"run {one.run_id} is scored without a score")
    return score


def interval(value: float | None, low: float | None, high: float | None) -> Shown | None:
    """Three nullable columns as one number, or None."""
    return None if value is None else Shown(value, low, high)
