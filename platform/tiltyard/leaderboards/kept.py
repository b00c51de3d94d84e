"""Boards that are kept in the process, so that a page of a large one costs no more than one of a small one.

A board is kept under the key of everything that it is made from (`keys.py`, and the statistics' own fingerprint), which
is read anew for each request: it is shown for as long as it is right, and what is withheld from a viewer has another
key. Only what somebody changed in the database by hand may be up to AGE_MAX_S old. When a board has changed, the first
who asks makes it anew, and who asks meanwhile is shown the one before, if what may be shown is the same. So it is for
REST times the processor time that making took, where that was long: a board of thousands that changes with every score,
of which there may be twenty a second, would else be made for each of its readers.

What is made of a board, such as the rows of its page, is kept with it (`Kept.made`) and goes with it.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from django.db.models import BigIntegerField

from tiltyard.competitions.models import Competition, Phase, Suite, Track
from tiltyard.competitions.reading import active_suites_of
from tiltyard.leaderboards.board import Board, board_of
from tiltyard.leaderboards.feedback import Feedback, feedback_in, feedback_now
from tiltyard.leaderboards.keys import board_key
from tiltyard.leaderboards.models import BoardStatistics
from tiltyard.statements import Given, Statement

# In all boards of one process together: 3 KB each, 90 MB. With fewer than the site has, boards push each other out, and
# making one of two thousand entries anew takes a fifth of a second.
ENTRIES_MAX: Final = 30_000
AGE_MAX_S: Final = 600.0
LONG_S: Final = 0.05  # of processor time
REST: Final = 20.0
WAIT_S: Final = 2.0  # for who makes the board anew, before one makes it oneself
_MADE_MAX: Final = 40  # parts of one board, up to 100 KB each
_COMPUTED = Statement(
    lambda: BoardStatistics.objects.filter(track=Given("track", BigIntegerField())).only("fingerprint", "computed_at")
)
T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """A board under its key, with what was made of it."""

    key: str
    board: Board
    kept_at: float
    cost_s: float  # processor time that making it took
    _made: dict[Hashable, Any] = field(default_factory=dict)

    def rests(self) -> bool:
        """Whether it may be shown although the board has changed since."""
        return self.cost_s > LONG_S and time.monotonic() - self.kept_at < min(REST * self.cost_s, AGE_MAX_S)

    def made(self, name: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, kept under this name; nothing in it may depend on who looks at it."""
        with contextlib.suppress(KeyError):  # another thread may clear them at any moment
            found: T = self._made[name]
            return found
        made = make()
        if len(self._made) >= _MADE_MAX:
            self._made.clear()
        self._made[name] = made
        return made


class _Shelf:
    """The boards of this process, the least recently used of which go first. One for each track and feedback."""

    def __init__(self) -> None:
        self._boards: OrderedDict[tuple[int, str], Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._makers: dict[tuple[int, str], threading.Lock] = {}

    def get(self, place: tuple[int, str], key: str, make: Callable[[], Board]) -> Kept:
        found = self._look(place)
        if found is not None and found.key == key and time.monotonic() - found.kept_at < AGE_MAX_S:
            return found
        shows_the_same = found is not None and found.key.partition(" ")[0] == key.partition(" ")[0]
        if found is not None and shows_the_same and found.rests():
            return found
        maker = self._maker(place)
        is_mine = maker.acquire(blocking=False)
        if not is_mine and found is not None and shows_the_same:
            return found  # somebody is making the new one
        if not is_mine:
            is_mine = maker.acquire(timeout=WAIT_S)
            found = self._look(place)
            if found is not None and found.key == key:
                if is_mine:
                    maker.release()
                return found
        try:
            began_s = time.thread_time()
            board = make()
            return self._put(place, Kept(key, board, time.monotonic(), time.thread_time() - began_s))
        finally:
            if is_mine:
                maker.release()

    def clear(self) -> None:
        with self._lock:
            self._boards.clear()

    def _look(self, place: tuple[int, str]) -> Kept | None:
        with self._lock:
            if place in self._boards:
                self._boards.move_to_end(place)
            return self._boards.get(place)

    def _maker(self, place: tuple[int, str]) -> threading.Lock:
        with self._lock:
            return self._makers.setdefault(place, threading.Lock())

    def _put(self, place: tuple[int, str], kept: Kept) -> Kept:
        with self._lock:
            self._boards[place] = kept
            self._boards.move_to_end(place)
            while (
                len(self._boards) > 1 and sum(1 + len(one.board.entries) for one in self._boards.values()) > ENTRIES_MAX
            ):
                self._boards.popitem(last=False)
        return kept


_shelf = _Shelf()


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
    if suites is None:
        suites = active_suites_of(competition)
    if phases is None:
        feedback = feedback_now(competition, now, is_organiser=is_organiser)
    else:
        feedback = feedback_in(competition, phases, now, is_organiser=is_organiser)
    track.competition = competition
    key = f"{feedback}:{_config(track, suites)} {board_key(track, suites, feedback)} {_statistics(track, feedback)}"
    return _shelf.get((track.pk, feedback), key, lambda: board_of(competition, track, suites, feedback, now))


def _config(track: Track, suites: Sequence[Suite]) -> str:
    """The part of the key that does not change with the rows: while it is the same, so is what may be shown."""
    return board_key(
        Track(pk=track.pk, competition=track.competition, columns=track.columns, rank_by=track.rank_by), suites, ""
    )


def _statistics(track: Track, feedback: Feedback) -> str:
    if feedback != Feedback.FULL:
        return ""
    found = _COMPUTED.first(track=track.pk)
    return f"{found.fingerprint}@{found.computed_at.isoformat()}" if found else ""
