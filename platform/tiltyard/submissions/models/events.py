"""The append-only history of a run, which its page shows as a timeline."""

from typing import Any, NoReturn

from django.db import models
from django.utils import timezone

from tiltyard.submissions.states import EventKind, RunState

EVENT_MESSAGE_CHARS = 300


class HistoryIsFixed(TypeError):  # noqa: N818 - names what is tried in vain
    """Somebody tried to change or remove what has happened: a mistake in the program."""


class RunEventQuerySet(models.QuerySet["RunEvent"]):
    def update(self, **_fields: Any) -> NoReturn:
        raise HistoryIsFixed("The events of a run are only ever added to.")

    def delete(self) -> NoReturn:
        raise HistoryIsFixed("The events of a run are only ever added to; they go when the run itself is deleted.")


class RunEvent(models.Model):
    """One entry: added with the change it tells of, in the same transaction; never changed."""

    run = models.ForeignKey("submissions.Run", on_delete=models.CASCADE, related_name="events")
    attempt = models.PositiveSmallIntegerField()
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=20, choices=EventKind.choices, default=EventKind.STAGE)
    state = models.CharField(max_length=12, choices=RunState.choices)
    message = models.CharField(max_length=EVENT_MESSAGE_CHARS)  # public: no hidden text, no path, no host name

    objects = RunEventQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["at"], name="event_at")]  # metrics look at the last day's

    def __str__(self) -> str:
        return f"{self.state}: {self.message}"

    def save(self, **options: Any) -> None:
        if not self._state.adding:
            raise HistoryIsFixed("The events of a run are only ever added to.")
        super().save(**options)

    def delete(self, using: Any = None, keep_parents: bool = False) -> NoReturn:  # noqa: ARG002 - as Django's
        raise HistoryIsFixed("The events of a run are only ever added to; they go when the run itself is deleted.")


def shortened(message: str) -> str:
    """The message as it fits into an event."""
    return message if len(message) <= EVENT_MESSAGE_CHARS else message[: EVENT_MESSAGE_CHARS - 1] + "…"
