"""When boards change. What is kept of a board is kept under its track's revision, so nobody has to throw it away.

Whoever changes what is on a board says so in the transaction that does it: a scored run, a rung of the Ladder, a
submission that becomes a baseline, a participant with another name. Who reads the new revision then reads the new rows
as well. What a bundle says of a competition is part of every key (`keys.py`) and needs no revision.
"""

from collections.abc import Collection, Iterable

from django.db.models import F
from django.db.models.signals import post_save
from django.dispatch import receiver

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Track


def board_changed(tracks: Iterable[int]) -> None:
    """Say that the boards of these tracks, by key, are others now. Do it last: it holds the tracks' rows locked."""
    Track.objects.filter(pk__in=sorted(tracks)).update(board_revision=F("board_revision") + 1)


@receiver(post_save, sender=User)
def name_changed(instance: User, *, created: bool, update_fields: Collection[str] | None, **_: object) -> None:
    """A person was saved, with another name perhaps: their boards are others. Signing in saves a date alone."""
    if not created and (update_fields is None or User.USERNAME_FIELD in update_fields):
        board_changed(Track.objects.filter(submissions__owner=instance).values_list("pk", flat=True).distinct())
