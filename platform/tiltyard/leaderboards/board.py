"""The leaderboard of one track: the best run of each participant, and the baselines among them."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tiltyard.competitions.models import Competition, Suite, Track
from tiltyard.leaderboards.intervals import Interval
from tiltyard.leaderboards.ranking import ranking_basis
from tiltyard.submissions.models import Run, Submission
from tiltyard.submissions.states import RunState


@dataclass(frozen=True)
class Entry:
    """One row. Equal scores share a rank; a baseline stands in its place but has no rank."""

    rank: int | None
    is_tied: bool
    submission: Submission
    run: Run
    owner_name: str
    is_baseline: bool
    score: Interval
    open: Interval | None
    hidden: Interval | None
    gap: Interval | None  # open − hidden: what an entry loses on questions that nobody could train on
    submitted_at: datetime

    @property
    def name(self) -> str:
        return self.submission.name


@dataclass(frozen=True)
class Board:
    competition: Competition
    track: Track
    suites: Sequence[Suite]
    entries: Sequence[Entry]
    made_at: datetime


def leaderboard(competition: Competition, track: Track, *, now: datetime) -> Board:
    """Rank a track in two queries.

    Only scored runs of the present suites and weights count. Of a participant the best run counts, of equals the first;
    of the baselines the best run of each name.
    """
    suites = list(competition.suites.filter(is_active=True).order_by("order"))
    runs = (
        Run.objects.filter(
            submission__competition=competition,
            submission__track=track,
            state=RunState.SCORED,
            score__isnull=False,
            ranking_basis=ranking_basis(competition, suites),
        )
        .select_related("submission__owner")
        .defer("build_log", "server_log")
        .order_by("-score", "submission__created_at", "pk")
    )
    best: dict[tuple[object, ...], Run] = {}
    for run in runs:
        submission = run.submission
        key = ("baseline", submission.name) if submission.is_baseline else ("owner", submission.owner_id)
        best.setdefault(key, run)
    return Board(competition, track, suites, _ranked(list(best.values())), now)


def _ranked(runs: Sequence[Run]) -> list[Entry]:
    """Entries in the order of their runs, best first: competition ranking, 1 2 2 4."""
    times = Counter(run.score for run in runs if not run.submission.is_baseline)
    entries: list[Entry] = []
    ranked = 0
    rank_of_score: dict[float | None, int] = {}
    for run in runs:
        if run.submission.is_baseline:
            entries.append(_entry(run, None, is_tied=False))
            continue
        ranked += 1
        rank = rank_of_score.setdefault(run.score, ranked)
        entries.append(_entry(run, rank, is_tied=times[run.score] > 1))
    return entries


def _entry(run: Run, rank: int | None, *, is_tied: bool) -> Entry:
    submission = run.submission
    score = interval(run.score, run.score_low, run.score_high)
    if score is None:
        raise ValueError(f"run {run.pk} is scored without a score")
    return Entry(
        rank=rank,
        is_tied=is_tied,
        submission=submission,
        run=run,
        owner_name=submission.owner.get_username(),
        is_baseline=submission.is_baseline,
        score=score,
        open=interval(run.open_score, run.open_low, run.open_high),
        hidden=interval(run.hidden_score, run.hidden_low, run.hidden_high),
        gap=interval(run.gap, run.gap_low, run.gap_high),
        submitted_at=submission.created_at,
    )


def interval(value: float | None, low: float | None, high: float | None) -> Interval | None:
    """Three nullable columns as one interval, or None."""
    return None if value is None or low is None or high is None else Interval(value, low, high)


_PARTS = ("score", "open", "hidden", "gap")
CSV_HEADER = (
    ["rank", "name", "owner", "baseline"]
    + [f"{part}{suffix}" for part in _PARTS for suffix in ("", "_low", "_high")]
    + ["submitted_at", "run_id"]
)


def board_csv(board: Board) -> str:
    """The board as CSV with a header line; scores as fractions, times in ISO 8601."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_HEADER)
    for entry in board.entries:
        numbers: list[str] = []
        for part in (entry.score, entry.open, entry.hidden, entry.gap):
            numbers += [f"{number:.6f}" for number in (part.value, part.low, part.high)] if part else [""] * 3
        writer.writerow(
            [
                entry.rank if entry.rank is not None else "",
                _inert(entry.name),
                _inert(entry.owner_name),
                "yes" if entry.is_baseline else "no",
                *numbers,
                entry.submitted_at.isoformat(),
                entry.run.pk,
            ]
        )
    return text.getvalue()


def _inert(text: str) -> str:
    """A participant's text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
