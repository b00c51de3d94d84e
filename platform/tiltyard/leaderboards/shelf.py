"""The boards of one process: which is shown, and who makes the next one when.

A board of hundreds of entries is made beside the pages, in a thread of its own and by one process for all, while
everybody is shown the one before, for STALE_S at most. Shorter ones are made by the first who asks.
"""

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from django.db import close_old_connections

from tiltyard.leaderboards import shared
from tiltyard.leaderboards.board import Board
from tiltyard.leaderboards.keys import name_in, shows_the_same
from tiltyard.leaderboards.shared import Place, Rows, Shown

logger = logging.getLogger(__name__)

# In all boards of one process together: 3 KB each, 90 MB. With fewer than the site has, boards push each other out.
ENTRIES_MAX: Final = 30_000
AGE_MAX_S: Final = 600.0
LONG_ENTRIES: Final = 500
STALE_S: Final = 10.0  # how long a board is shown after it was last known to be the present one
REST: Final = 20.0  # times the processor time that making took, before a long board is made again
WAIT_S: Final = 2.0  # for who makes the board anew, before one makes it oneself
_MADE_MAX: Final = 40  # parts of one board, up to 100 KB each
T = TypeVar("T")


@dataclass
class Kept:
    """A board under its key, with what was made of it.

    Attributes:
        revision: The track's, which was read before the rows were.
        cost_s: Processor time that making it took.
        present_at: When it was last known to be the present one.
        is_behind: Whether the board has changed since, and the next one is being made.
    """

    key: str
    revision: int
    board: Board
    cost_s: float
    kept_at: float = field(default_factory=time.monotonic)
    present_at: float = field(default_factory=time.monotonic)
    is_behind: bool = False
    _made: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def is_long(self) -> bool:
        return len(self.board.entries) >= LONG_ENTRIES

    @property
    def rests(self) -> bool:
        """Whether it was made so lately that it is not made again yet."""
        return time.monotonic() - self.kept_at < REST * self.cost_s

    def shows_the_same(self, key: str) -> bool:
        """Whether a board with this key shows and withholds the same, of other rows perhaps."""
        return shows_the_same(self.key, key)

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


@dataclass(frozen=True)
class Wanted:
    """A board that somebody asks for.

    Attributes:
        key: `keys.full_key`.
        read: Reads its rows.
        make: Makes it of rows.
        is_public: Whether everything in its rows may be shown to everybody.
    """

    place: Place
    key: str
    revision: int
    read: Callable[[], Rows]
    make: Callable[[Rows], Board]
    is_public: bool

    @property
    def name(self) -> str:
        return name_in(self.key)


class _Thread:
    """One for all boards that are made beside the pages, with a connection to the database of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="board")

    def run(self, work: Callable[[], None]) -> None:
        self._pool.submit(self._do, work)

    @staticmethod
    def _do(work: Callable[[], None]) -> None:
        close_old_connections()
        work()
        close_old_connections()


class Shelf:
    """Boards by place; the least recently used boards go first. One for each track and what is shown of it."""

    def __init__(self, beside: Callable[[Callable[[], None]], object] | None = None) -> None:
        self._boards: OrderedDict[Place, Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._makers: dict[Place, threading.Lock] = {}
        self._ordered: set[Place] = set()
        self._beside = beside or _Thread().run

    def get(self, wanted: Wanted) -> Kept:
        """The board as it is now; a long one as it was up to STALE_S ago, and then its next one is on its way."""
        found = self._look(wanted.place)
        now = time.monotonic()
        if found is not None and found.key == wanted.key and now - found.kept_at < AGE_MAX_S:
            found.present_at = now
            return found
        if found is None or not found.shows_the_same(wanted.key):
            return self._made_here(wanted, None)
        if not found.is_long or now - found.present_at > STALE_S:
            return self._made_here(wanted, found)
        newest = shared.newest(wanted.place)
        if newest is not None and newest.revision > found.revision and found.shows_the_same(newest.key):
            return self._taken_over(wanted, newest)
        if not found.rests:
            self._order(wanted)
        return replace(found, is_behind=found.key != wanted.key)

    def clear(self) -> None:
        with self._lock:
            self._boards.clear()

    def _order(self, wanted: Wanted) -> None:
        """Have it made beside the pages, unless it is on order."""
        with self._lock:
            if wanted.place in self._ordered:
                return
            self._ordered.add(wanted.place)
        self._beside(lambda: self._made_beside(wanted))

    def _made_beside(self, wanted: Wanted) -> None:
        try:
            if shared.begin(wanted.place):  # else another process makes it, from which it will be taken
                try:
                    with self._maker(wanted.place):
                        self._make(wanted)
                finally:
                    shared.end(wanted.place)
        except Exception:  # the thread's boundary: after STALE_S who asks for the board makes it, and is told
            logger.exception("the board of track %s was not made", wanted.place[0])
        finally:
            with self._lock:
                self._ordered.discard(wanted.place)

    def _made_here(self, wanted: Wanted, meanwhile: Kept | None) -> Kept:
        """Made by who asks; while another thread does so, `meanwhile` is shown, or waited for."""
        maker = self._maker(wanted.place)
        is_mine = maker.acquire(blocking=False)
        if not is_mine and meanwhile is not None and not meanwhile.is_long:
            return meanwhile
        if not is_mine:
            is_mine = maker.acquire(timeout=WAIT_S)
            found = self._look(wanted.place)
            if found is not None and found.key == wanted.key:
                if is_mine:
                    maker.release()
                return found
        try:
            return self._make(wanted)
        finally:
            if is_mine:
                maker.release()

    def _taken_over(self, wanted: Wanted, newest: Shown) -> Kept:
        """The board that another process shows already: nobody may be shown an older one after it."""
        with self._maker(wanted.place):
            found = self._look(wanted.place)
            if found is not None and found.revision >= newest.revision and found.shows_the_same(wanted.key):
                return found
            if wanted.is_public and (rows := shared.rows_of(newest.name)):
                began_s = time.thread_time()
                board = wanted.make(rows)
                return self._put(wanted, Kept(newest.key, newest.revision, board, time.thread_time() - began_s))
            return self._make(wanted)

    def _make(self, wanted: Wanted) -> Kept:
        rows = shared.rows_of(wanted.name) if wanted.is_public else None
        is_own = rows is None
        began_s = time.thread_time()
        if rows is None:
            rows = wanted.read()
        board = wanted.make(rows)
        kept = Kept(wanted.key, wanted.revision, board, time.thread_time() - began_s)
        if kept.is_long:
            if is_own and wanted.is_public:
                shared.share(wanted.name, rows)
            shared.say_shown(wanted.place, Shown(wanted.revision, wanted.key))
        return self._put(wanted, kept)

    def _look(self, place: Place) -> Kept | None:
        with self._lock:
            if place in self._boards:
                self._boards.move_to_end(place)
            return self._boards.get(place)

    def _maker(self, place: Place) -> threading.Lock:
        with self._lock:
            return self._makers.setdefault(place, threading.Lock())

    def _put(self, wanted: Wanted, kept: Kept) -> Kept:
        """Keep it, unless a newer one has come meanwhile, which is shown instead if it may be."""
        with self._lock:
            before = self._boards.get(wanted.place)
            is_lately = before is not None and time.monotonic() - before.kept_at < AGE_MAX_S  # else set back by hand
            if before is not None and is_lately and before.revision > kept.revision:
                return before if before.shows_the_same(kept.key) else kept
            self._boards[wanted.place] = kept
            self._boards.move_to_end(wanted.place)
            while (
                len(self._boards) > 1 and sum(1 + len(one.board.entries) for one in self._boards.values()) > ENTRIES_MAX
            ):
                self._boards.popitem(last=False)
        return kept
