"""Who leads each board, for lists of competitions: written by the boards' job, so that a list needs one query."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic import BaseModel, ConfigDict

from tiltyard.competitions.models import Suite, Track
from tiltyard.leaderboards.board import Entry, board_of
from tiltyard.leaderboards.feedback import feedback_now
from tiltyard.leaderboards.keys import board_key
from tiltyard.leaderboards.models import BoardSummary

TOP: Final = 3


class Leader(BaseModel):
    """One of the first entries of a board; without bounds where the Ladder publishes the score."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    is_baseline: bool
    is_reference: bool = False
    score: float
    low: float | None
    high: float | None


def summarise(track: Track, suites: Sequence[Suite], statistics: str, now: datetime) -> bool:
    """Write down what everybody may see of a board, if it is another one than before; returns whether it is.

    `statistics` names the board's statistics, by which it may be ranked.
    """
    feedback = feedback_now(track.competition, now)
    key = board_key(track, suites, f"{feedback} {statistics}")
    if BoardSummary.objects.filter(track=track, key=key).exists():
        return False
    board = board_of(track.competition, track, suites, feedback, now)
    BoardSummary.objects.update_or_create(
        track=track,
        defaults={
            "key": key,
            "feedback": feedback,
            "entries": len(board.entries),
            "top": [_leader(entry).model_dump() for entry in board.entries[:TOP]],
        },
    )
    return True


def _leader(entry: Entry) -> Leader:
    return Leader(
        name=entry.name,
        is_baseline=entry.is_baseline,
        is_reference=entry.is_reference,
        score=entry.score.value,
        low=entry.score.low,
        high=entry.score.high,
    )
