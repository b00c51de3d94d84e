"""When boards change. What is kept of a board is kept under its track's revision, so nobody has to throw it away.

Whoever changes what is on a board says so in the transaction that does it: a scored run, a rung of the Ladder, a
submission that becomes a baseline. Who reads the new revision then reads the new rows as well. What a bundle says of a
competition is part of every key (`keys.py`) and needs no revision.
"""

from collections.abc import Iterable

from django.db.models import F

from tiltyard.competitions.models import Track


def board_changed(tracks: Iterable[int]) -> None:
    """Say that the boards of these tracks, by key, are others now. Do it last: it holds the tracks' rows locked."""
    Track.objects.filter(pk__in=sorted(tracks)).update(board_revision=F("board_revision") + 1)
