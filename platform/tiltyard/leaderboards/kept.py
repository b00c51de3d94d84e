"""Boards that are kept in the process, so that a page of a large one costs no more than one of a small one.

A board is kept under the key of everything that it is made from (`keys.py`, and the statistics' own fingerprint), which
is read anew for each request: what is withheld from a viewer has another key. A board of hundreds of entries may be
some seconds old while its next one is made (`shelf.py`), if what may be shown is the same; `Kept.is_behind` says so.
Only what somebody changed in the database by hand may be up to AGE_MAX_S old.

What is made of a board, such as the rows of its page, is kept with it (`Kept.made`) and goes with it.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import BigIntegerField

from tiltyard.competitions.models import Competition, Phase, Suite, Track
from tiltyard.competitions.reading import active_suites_of
from tiltyard.leaderboards.board import board_of
from tiltyard.leaderboards.entrants import entrants
from tiltyard.leaderboards.feedback import Feedback, feedback_in, feedback_now
from tiltyard.leaderboards.keys import full_key
from tiltyard.leaderboards.models import BoardStatistics
from tiltyard.leaderboards.shared import Rows
from tiltyard.leaderboards.shelf import Kept, Shelf, Wanted
from tiltyard.statements import Given, Statement

__all__ = ["Kept", "forget_all", "kept_board"]
_COMPUTED = Statement(
    lambda: BoardStatistics.objects.filter(track=Given("track", BigIntegerField())).only("fingerprint", "computed_at")
)
_shelf = Shelf()


def forget_all() -> None:
    """Have every board made anew."""
    _shelf.clear()


def kept_board(
    competition: Competition,
    track: Track,
    *,
    now: datetime,
    is_organiser: bool = False,
    suites: Sequence[Suite] | None = None,
    phases: Sequence[Phase] | None = None,
) -> Kept:
    """The board as `board.leaderboard` makes it, in two queries at most when it is kept.

    `competition` and `track` must have been read for this request. Who has read all phases or the active suites in
    their order already may pass them.
    """
    asked = active_suites_of(competition) if suites is None else suites
    if phases is None:
        feedback = feedback_now(competition, now, is_organiser=is_organiser)
    else:
        feedback = feedback_in(competition, phases, now, is_organiser=is_organiser)
    track.competition = competition
    wanted = Wanted(
        place=(track.pk, feedback),
        key=full_key(track, asked, feedback, _statistics(track, feedback)),
        revision=track.board_revision,
        read=lambda: Rows(now, entrants(track, asked, feedback)),
        make=lambda rows: board_of(competition, track, asked, feedback, rows.made_at, standings=rows.standings),
        is_public=competition.is_public and competition.feedback["mode"] == Feedback.FULL,
    )
    return _shelf.get(wanted)


def _statistics(track: Track, feedback: Feedback) -> str:
    if feedback != Feedback.FULL:
        return ""
    found = _COMPUTED.first(track=track.pk)
    return f"{found.fingerprint}@{found.computed_at.isoformat()}" if found else ""
