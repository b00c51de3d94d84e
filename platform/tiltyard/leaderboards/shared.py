"""What the web server's processes tell each other of long boards, through the cache.

One process makes a board, and the others take the rows that it has read: PostgreSQL looks for the best run of each of
thousands of participants once after a change, and not once for each process. They also say which revision they show,
so that no visitor, whose requests go to any of them, sees a board go back to an older one; but for the instant in which
two of them say it.

Rows are shared only where everything in them is public; hidden scores that are withheld stay out of the cache. Without
a cache each process makes its own boards.
"""

import json
import logging
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.core.cache import cache

from tiltyard.leaderboards.keys import name_in
from tiltyard.leaderboards.standings import FIELDS, Standing
from tiltyard.submissions.models import ResourceUse

logger = logging.getLogger(__name__)

Place = tuple[int, str]  # a track's key, and what is shown of hidden scores
KEEP_S: Final = 60  # the others come within seconds, and what was changed by hand must not come back for long
MAKING_S: Final = 10  # after which who began to make a board is taken for dead
_COLUMNS: Final = Standing.__slots__[: len(FIELDS)]
_FORMAT: Final = [*_COLUMNS, *ResourceUse.FIGURES]


class Shown(NamedTuple):
    """A board that some process shows already."""

    revision: int
    key: str

    @property
    def name(self) -> str:
        return name_in(self.key)


class Rows(NamedTuple):
    """What a board is made of, and when it was read."""

    made_at: datetime
    standings: list[Standing]


def newest(place: Place) -> Shown | None:
    """The newest board of this place that any process has shown lately."""
    found = cache.get(_name("shown", *place))
    return Shown(*found) if isinstance(found, tuple) else None


def say_shown(place: Place, shown: Shown) -> None:
    """Say so before it is shown."""
    before = newest(place)
    if before is None or before.revision < shown.revision:
        cache.set(_name("shown", *place), tuple(shown), KEEP_S)


def share(name: str, rows: Rows) -> None:
    """Give them to the other processes under the board's name (`keys.py`). Only what everybody may see."""
    document = [_FORMAT, rows.made_at.isoformat(), [_row(one) for one in rows.standings]]
    cache.set(_name("rows", name), json.dumps(document, default=str), KEEP_S)


def rows_of(name: str) -> Rows | None:
    """The rows of the board with this name, if a process has shared them."""
    document = cache.get(_name("rows", name))
    if not isinstance(document, str):
        return None
    try:
        columns, made_at, rows = json.loads(document)
        if columns != _FORMAT:
            return None
        return Rows(datetime.fromisoformat(made_at), [_standing(row) for row in rows])
    except (ValueError, TypeError, AttributeError):  # of another version of this program, perhaps
        logger.warning("the shared rows of a board cannot be read", exc_info=True)
        return None


def begin(place: Place) -> bool:
    """Whether no other process is making this board; then `end` it."""
    return cache.add(_name("making", *place), True, MAKING_S)


def end(place: Place) -> None:
    cache.delete(_name("making", *place))


def _name(what: str, *parts: object) -> str:
    return ":".join(["board", settings.INSTANCE, what, *map(str, parts)]).replace(" ", "_")


def _row(one: Standing) -> list[Any]:
    resources = None if one.resources is None else [getattr(one.resources, name) for name in ResourceUse.FIGURES]
    return [*(getattr(one, name) for name in _COLUMNS), resources]


def _standing(row: Sequence[Any]) -> Standing:
    run_id, name, is_baseline, submitted_at, *rest, resources = row
    figures = None if resources is None else dict(zip(ResourceUse.FIGURES, resources, strict=True))
    return Standing(
        uuid.UUID(run_id),
        name,
        is_baseline,
        datetime.fromisoformat(submitted_at),
        *rest,
        resources=None if figures is None else ResourceUse(**figures),
    )
