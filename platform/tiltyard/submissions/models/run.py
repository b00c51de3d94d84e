"""A run, its lease, and its history.

Two workers can be sure of nothing about each other, so every change of state is one compare-and-set update whose row
count decides who won, and the attempt number is a fencing token: a worker that was given up for dead and comes back
finds that its writes change nothing.
"""

import uuid
from datetime import datetime, timedelta
from typing import Any, Self

from django.conf import settings
from django.db import models, transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from tiltyard.submissions.models.submission import Submission
from tiltyard.submissions.states import ACTIVE, FINAL, TRANSITIONS, FailureReason, RunState

EVENT_MESSAGE_CHARS = 300


class RunQuerySet(models.QuerySet["Run"]):
    def unfinished(self) -> Self:
        return self.exclude(state__in=FINAL)

    def claimable(self) -> Self:
        return self.filter(state=RunState.QUEUED, cancel_requested_at=None)

    def expired(self, now: datetime) -> Self:
        """Claimed by a worker that has stopped renewing its lease."""
        return self.filter(state__in=ACTIVE, lease_expires_at__lt=now)

    def charged(self) -> Self:
        """Runs that count against a quota: not those that failed by our fault, nor those cancelled before a start."""
        return self.exclude(failure_reason=FailureReason.INFRA_ERROR).exclude(
            state=RunState.CANCELLED, started_at__isnull=True
        )


class Run(models.Model):
    """One execution of a submission against every active suite. The row is the truth about it; see states.py."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    submission = models.ForeignKey(Submission, on_delete=models.CASCADE, related_name="runs")
    state = models.CharField(max_length=12, choices=RunState.choices, default=RunState.QUEUED)
    failure_reason = models.CharField(max_length=20, choices=FailureReason.choices, blank=True)
    failure_message = models.TextField(blank=True)  # for the owner; never holds hidden text

    # The attempt number is the fencing token: every write of a worker says `WHERE attempt = mine`.
    attempt = models.PositiveSmallIntegerField(default=0)
    worker = models.CharField(max_length=120, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)

    queued_at = models.DateTimeField(default=timezone.now)
    published_at = models.DateTimeField(null=True, blank=True)  # when its message last went to the queue
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    # What the page shows while an evaluation is under way.
    current_suite = models.CharField(max_length=120, blank=True)
    items_done = models.PositiveIntegerField(default=0)
    items_total = models.PositiveIntegerField(default=0)

    image_digest = models.CharField(max_length=80, blank=True)
    build_log = models.TextField(blank=True)  # capped; for the owner and the organisers
    server_log = models.TextField(blank=True)  # capped; of open suites only: a hidden suite's questions could be in it

    # The ranking score, its open and hidden parts, and open − hidden, each with a 95 % interval; null until scored.
    score = models.FloatField(null=True, blank=True)
    score_low = models.FloatField(null=True, blank=True)
    score_high = models.FloatField(null=True, blank=True)
    open_score = models.FloatField(null=True, blank=True)
    open_low = models.FloatField(null=True, blank=True)
    open_high = models.FloatField(null=True, blank=True)
    hidden_score = models.FloatField(null=True, blank=True)
    hidden_low = models.FloatField(null=True, blank=True)
    hidden_high = models.FloatField(null=True, blank=True)
    gap = models.FloatField(null=True, blank=True)
    gap_low = models.FloatField(null=True, blank=True)
    gap_high = models.FloatField(null=True, blank=True)
    # Names the suites and weights behind the score: only runs with the same basis are ranked together.
    ranking_basis = models.CharField(max_length=64, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ["-queued_at"]
        indexes = [
            models.Index(fields=["state", "queued_at"]),
            models.Index(fields=["state", "lease_expires_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.submission} ({self.state})"

    def get_absolute_url(self) -> str:
        return reverse("run", args=[self.pk])

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @classmethod
    def enqueue(cls, submission: Submission, now: datetime, message: str) -> "Run":
        """A new queued run with its first event; call it inside a transaction and publish it on commit."""
        run = cls.objects.create(submission=submission, queued_at=now)
        run._record(message, now)
        return run

    @classmethod
    def claim(cls, run_id: uuid.UUID | str, worker: str, now: datetime) -> "Run | None":
        """Take a queued run for this worker; None when it is gone, taken, finished or cancelled."""
        with transaction.atomic():
            won = (
                cls.objects.claimable()
                .filter(pk=run_id)
                .update(
                    state=RunState.PREPARING,
                    attempt=F("attempt") + 1,
                    worker=worker[:120],
                    lease_expires_at=now + timedelta(seconds=settings.RUN_LEASE_S),
                    started_at=now,
                    current_suite="",
                    items_done=0,
                    items_total=0,
                    build_log="",
                    server_log="",
                )
            )
            if not won:
                return None
            run = cls.objects.select_related("submission__competition", "submission__track").get(pk=run_id)
            run._record("A worker took the run." if run.attempt == 1 else f"Attempt {run.attempt} began.", now)
            return run

    def transition(self, to: RunState, message: str, *, now: datetime | None = None, **fields: Any) -> bool:
        """Move to another state and write `fields`, if this attempt still holds the run; False when it does not.

        A run that someone wants cancelled is not queued again either: nobody would ever claim it. Raises ValueError on
        a transition that states.py does not know: that is a mistake in the program.
        """
        if to not in TRANSITIONS[RunState(self.state)]:
            raise ValueError(f"A run cannot go from {self.state} to {to}.")
        now = now or timezone.now()
        if to in FINAL:
            fields |= {"finished_at": now, "lease_expires_at": None}
        elif to == RunState.QUEUED:
            # Without its start, which our fault undid, a run that is cancelled now is not charged.
            unclaimed = {"published_at": None, "lease_expires_at": None, "worker": "", "started_at": None}
            fields |= unclaimed | {"queued_at": now}
        held = self._fenced().filter(state=self.state)
        if to == RunState.QUEUED:
            held = held.filter(cancel_requested_at=None)
        with transaction.atomic():
            if not held.update(state=to, **fields):
                return False
            self.state = to
            for name, value in fields.items():
                setattr(self, name, value)
            self._record(message, now)
        return True

    def renew_lease(self, now: datetime) -> bool:
        """Say that the worker lives; False when the run has been taken away from it."""
        expires_at = now + timedelta(seconds=settings.RUN_LEASE_S)
        return bool(self._fenced().filter(state__in=ACTIVE).update(lease_expires_at=expires_at))

    def write(self, **fields: Any) -> bool:
        """Write progress, logs and the like without a change of state; False when the run has been taken away."""
        return bool(self._fenced().filter(state__in=ACTIVE).update(**fields))

    def is_cancel_requested(self) -> bool:
        return self._fenced().filter(cancel_requested_at__isnull=False).exists()

    def request_cancel(self, now: datetime) -> bool:
        """Cancel: at once while queued, else by a flag that the worker heeds within seconds; False when it is over."""
        with transaction.atomic():
            queued = Run.objects.filter(pk=self.pk, state=RunState.QUEUED)
            if queued.update(state=RunState.CANCELLED, cancel_requested_at=now, finished_at=now):
                self.refresh_from_db()
                self._record("Cancelled before it started." if self.attempt == 0 else "Cancelled.", now)
                return True
            flagged = Run.objects.filter(pk=self.pk, state__in=ACTIVE)
            if flagged.filter(cancel_requested_at=None).update(cancel_requested_at=now):
                self.refresh_from_db()
                self._record("Cancellation requested; the worker is stopping it.", now)
                return True
            return flagged.exists()

    def _fenced(self) -> RunQuerySet:
        return Run.objects.filter(pk=self.pk, attempt=self.attempt)

    def _record(self, message: str, at: datetime) -> None:
        text = message if len(message) <= EVENT_MESSAGE_CHARS else message[: EVENT_MESSAGE_CHARS - 1] + "…"
        RunEvent.objects.create(run=self, attempt=self.attempt, at=at, state=self.state, message=text)


class RunEvent(models.Model):
    """The append-only history of a run, which its page shows as a timeline."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    attempt = models.PositiveSmallIntegerField()
    at = models.DateTimeField(default=timezone.now)
    state = models.CharField(max_length=12, choices=RunState.choices)
    message = models.CharField(max_length=EVENT_MESSAGE_CHARS)  # public: no hidden text, no path, no host name

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.state}: {self.message}"
