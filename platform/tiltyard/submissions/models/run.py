"""A run, its lease, and its place in the queue.

Two workers can be sure of nothing about each other, so every change of state is one compare-and-set update whose row
count decides who won, and the attempt number is a fencing token: a worker that was given up for dead and comes back
finds that its writes change nothing. What depends on a change is written in the transaction that made it.
"""

import uuid
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Self

from django.conf import settings
from django.db import models, transaction
from django.db.models import Count, Q
from django.urls import reverse
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Suite
from tiltyard.submissions.models.events import RunEvent, shortened
from tiltyard.submissions.models.submission import Submission
from tiltyard.submissions.models.turns import turn_for
from tiltyard.submissions.states import ACTIVE, FINAL, STATES, Allowance, EventKind, FailureReason, RunState, kind_of

# What an attempt looks at, read with the run itself.
_READ_BY_A_WORKER = (
    "submission__competition",
    "submission__track",
    "submission__artefact",
    "submission__owner",
)


def _queue_deadline() -> datetime:
    return timezone.now() + timedelta(seconds=settings.QUEUE_DEADLINE_S)


class RunQuerySet(models.QuerySet["Run"]):
    def unfinished(self) -> Self:
        return self.exclude(state__in=FINAL)

    def claimable(self) -> Self:
        return self.filter(state=RunState.QUEUED, cancel_requested_at=None)

    def in_turn(self, queue: str) -> Self:
        """What waits in a queue, the next one first: by priority, then as turns.py says, then by age."""
        return self.claimable().filter(queue=queue).order_by("-priority", "turn", "queued_at")

    def active_of_participants(self) -> Self:
        """Under way and counted against a participant's RUNS_PER_USER_MAX; organisers' baselines are not."""
        return self.filter(state__in=ACTIVE, submission__is_baseline=False)

    def expired(self, now: datetime) -> Self:
        """Held by a worker that has stopped renewing its lease, or too long in a state, be it that nobody came."""
        return self.filter(Q(state__in=ACTIVE, lease_expires_at__lt=now) | Q(deadline_at__lt=now)).unfinished()


class Run(models.Model):
    """One execution of a submission against every active suite. The row is the truth about it; see states.py."""

    class Priority(models.IntegerChoices):
        LOW = -1, "After the others"
        NORMAL = 0, "Normal"
        HIGH = 1, "Before the others"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    submission = models.ForeignKey(Submission, on_delete=models.CASCADE, related_name="runs")
    state = models.CharField(max_length=12, choices=RunState.choices, default=RunState.QUEUED)
    failure_reason = models.CharField(max_length=20, choices=FailureReason.choices, blank=True)
    failure_message = models.TextField(blank=True)  # for the owner; never holds hidden text

    # The attempt number is the fencing token: every write of a worker says `WHERE attempt = mine`.
    attempt = models.PositiveSmallIntegerField(default=0)
    faults = models.PositiveSmallIntegerField(default=0)  # attempts that ended by the platform's fault
    worker = models.CharField(max_length=120, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True, default=_queue_deadline)  # of the state; none when final
    cancel_requested_at = models.DateTimeField(null=True, blank=True)

    # Its place among those that wait. The queue is the track's; an outbox job follows when that changes.
    queue = models.CharField(max_length=40, blank=True)
    priority = models.SmallIntegerField(choices=Priority.choices, default=Priority.NORMAL)
    turn = models.BigIntegerField(default=0)  # see turns.py

    queued_at = models.DateTimeField(default=timezone.now)  # first; a second attempt does not go to the end
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
            # The two that the queue is read by: the next run, and the queue's virtual time.
            models.Index(
                fields=["queue", "-priority", "turn", "queued_at"],
                condition=Q(state=RunState.QUEUED),
                name="run_in_turn",
            ),
            models.Index(fields=["queue", "-turn"], condition=Q(attempt__gt=0), name="run_turns_taken"),
            # A board's runs, among all that were ever scored.
            models.Index(fields=["ranking_basis"], condition=Q(state=RunState.SCORED), name="run_on_a_board"),
            # Who worked lately, and how long the last runs took: for metrics and the status page.
            models.Index(
                fields=["queue", "-finished_at"], condition=Q(finished_at__isnull=False), name="run_lately_finished"
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=sorted(FINAL)) | Q(deadline_at__isnull=False), name="run_has_a_deadline"
            )
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
        queue = submission.track.queue
        run = cls.objects.create(
            submission=submission,
            queued_at=now,
            deadline_at=now + timedelta(seconds=settings.QUEUE_DEADLINE_S),
            queue=queue,
            turn=turn_for(cls, submission, queue),
        )
        run._record(message, now)
        return run

    @classmethod
    def claim_next(cls, queue: str, worker: str, now: datetime) -> "Run | None":
        """Take the run whose turn it is for this worker; None when nothing in the queue may start now.

        Passes over participants who have RUNS_PER_USER_MAX runs under way, and runs that another worker is just taking.
        """
        waiting = cls.objects.in_turn(queue).select_related(*_READ_BY_A_WORKER)
        full: set[int] = set()
        while True:
            # Most often the first has room; only when it has not, everybody without room is asked for.
            allowed = waiting.exclude(submission__owner__in=full, submission__is_baseline=False) if full else waiting
            with transaction.atomic():
                run = allowed.select_for_update(skip_locked=True, of=("self",)).first()
                if run is None:
                    return None
                if run._owner_has_room():
                    return run if run._take(worker, now) else None
            full |= {run.submission.owner_id} | cls._owners_without_room()

    @classmethod
    def claim(cls, run_id: uuid.UUID | str, worker: str, now: datetime) -> "Run | None":
        """Take this very run for this worker, whosever turn it is; None when it is gone, taken, over or cancelled."""
        runs = cls.objects.claimable().select_related(*_READ_BY_A_WORKER)
        run = runs.filter(pk=run_id).first()
        if run is None:
            return None
        with transaction.atomic():
            return run if run._take(worker, now) else None

    def _take(self, worker: str, now: datetime) -> bool:
        fields = {
            "state": RunState.PREPARING,
            "attempt": self.attempt + 1,
            "worker": worker[:120],
            "lease_expires_at": now + timedelta(seconds=settings.RUN_LEASE_S),
            "deadline_at": self._deadline(RunState.PREPARING, now),
            "started_at": now,
            "current_suite": "",
            "items_done": 0,
            "items_total": 0,
            "build_log": "",
            "server_log": "",
        }
        if not self._fenced().claimable().update(**fields):
            return False
        self._adopt(fields)
        self._record("A worker took the run." if self.attempt == 1 else f"Attempt {self.attempt} began.", now)
        return True

    def transition(self, to: RunState, message: str, *, now: datetime | None = None, **fields: Any) -> bool:
        """Move to another state and write `fields`, if this attempt still holds the run; False when it does not.

        A run that someone wants cancelled is not queued again either: nobody would ever claim it. Raises ValueError on
        a transition that states.py does not know: that is a mistake in the program.
        """
        if to not in STATES[RunState(self.state)].to:
            raise ValueError(f"A run cannot go from {self.state} to {to}.")
        now = now or timezone.now()
        fields |= {"state": to, "deadline_at": self._deadline(to, now)}
        held = self._fenced().filter(state=self.state)
        if to in FINAL:
            fields |= {"finished_at": now, "lease_expires_at": None}
        elif to == RunState.QUEUED:
            # Without its start, which our fault undid, a run that is cancelled now is not charged.
            fields |= {"published_at": None, "lease_expires_at": None, "worker": "", "started_at": None}
            held = held.filter(cancel_requested_at=None)
        with transaction.atomic(savepoint=False):  # within a caller's transaction all of it is undone, or nothing
            if not held.update(**fields):
                return False
            self._record(message, now, state=to)
        self._adopt(fields)
        return True

    def renew_lease(self, now: datetime) -> bool:
        """Say that the worker lives; False when the run has been taken away from it, or its state's deadline passed."""
        expires_at = now + timedelta(seconds=settings.RUN_LEASE_S)
        held = self._fenced().filter(state__in=ACTIVE, deadline_at__gte=now)
        return bool(held.update(lease_expires_at=expires_at))

    def write(self, **fields: Any) -> bool:
        """Write progress, logs and the like without a change of state; False when the run has been taken away."""
        return bool(self._fenced().filter(state__in=ACTIVE).update(**fields))

    def is_cancel_requested(self) -> bool:
        return self._fenced().filter(cancel_requested_at__isnull=False).exists()

    def holds(self, state: RunState) -> bool:
        """Whether the row says that this attempt brought the run into this state: asked after an answer was lost."""
        return self._fenced().filter(state=state).exists()

    def request_cancel(self, now: datetime) -> bool:
        """Cancel: at once while queued, else by a flag that the worker heeds within seconds; False when it is over."""
        with transaction.atomic():
            queued = Run.objects.filter(pk=self.pk, state=RunState.QUEUED)
            if queued.update(state=RunState.CANCELLED, cancel_requested_at=now, finished_at=now, deadline_at=None):
                self.refresh_from_db()
                self._record("Cancelled before it started." if self.attempt == 0 else "Cancelled.", now)
                return True
            flagged = Run.objects.filter(pk=self.pk, state__in=ACTIVE)
            if flagged.filter(cancel_requested_at=None).update(cancel_requested_at=now):
                self.refresh_from_db()
                message = "Cancellation requested; the worker is stopping it."
                self._record(message, now, kind=EventKind.CANCEL_REQUESTED)
                return True
            return flagged.exists()

    @classmethod
    def _owners_without_room(cls) -> set[int]:
        limit = int(settings.RUNS_PER_USER_MAX)
        if not limit:
            return set()
        owners = cls.objects.active_of_participants().order_by().values("submission__owner")
        full = owners.annotate(running=Count("pk")).filter(running__gte=limit)
        return set(full.values_list("submission__owner", flat=True))

    def _owner_has_room(self) -> bool:
        """Exactly: the owner's row is locked, so that two workers do not both start the last run that is allowed."""
        limit = int(settings.RUNS_PER_USER_MAX)
        if not limit or self.submission.is_baseline:
            return True
        owner = User.objects.filter(pk=self.submission.owner_id)
        list(owner.select_for_update(no_key=True).values_list("pk"))
        running = Run.objects.active_of_participants().filter(submission__owner=self.submission.owner_id)
        return running.count() < limit

    def _deadline(self, state: RunState, now: datetime) -> datetime | None:
        deadline_s = STATES[state].deadline_s
        return None if deadline_s is None else now + timedelta(seconds=deadline_s(self._allowance))

    @cached_property
    def active_suites(self) -> list[Suite]:
        """What is asked of the submission, in this order; as it was when first looked at."""
        return list(self.submission.competition.suites.filter(is_active=True).order_by("order"))

    @cached_property
    def _allowance(self) -> Allowance:
        limits = self.submission.track.sandbox_limits()
        return Allowance(
            queue_s=settings.QUEUE_DEADLINE_S,
            build_s=limits.build_s,
            suite_s=limits.start_s + limits.evaluate_s,
            suites=len(self.active_suites),
            slack_s=settings.RUN_STAGE_SLACK_S,
        )

    def _fenced(self) -> RunQuerySet:
        return Run.objects.filter(pk=self.pk, attempt=self.attempt)

    def _adopt(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            setattr(self, name, value)

    def _record(
        self, message: str, at: datetime, *, state: RunState | None = None, kind: EventKind | None = None
    ) -> None:
        state = state or RunState(self.state)
        kind = kind or kind_of(state, self.attempt)
        RunEvent.objects.create(
            run=self, attempt=self.attempt, at=at, kind=kind, state=state, message=shortened(message)
        )
