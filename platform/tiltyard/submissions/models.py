"""Submissions, their runs, and what the runs produced."""

import uuid
from datetime import datetime
from pathlib import Path
from typing import Self

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Phase, Suite, Track
from tiltyard.submissions.states import ACTIVE, FINAL, FailureReason, RunState


class Artefact(models.Model):
    """An uploaded file, immutable and named by its hash, so that the same upload is stored once."""

    class Kind(models.TextChoices):
        DOCKER_CONTEXT = "docker_context", "Archive with a Dockerfile"
        IMAGE_ARCHIVE = "image_archive", "Image archive"

    sha256 = models.CharField(max_length=64, unique=True)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    size_bytes = models.BigIntegerField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.sha256[:12]}"

    @property
    def path(self) -> Path:
        return Path(settings.ARTEFACT_DIR) / self.sha256[:2] / self.sha256


class Submission(models.Model):
    """One entry of a participant in one track of a competition."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    competition = models.ForeignKey(Competition, on_delete=models.PROTECT, related_name="submissions")
    track = models.ForeignKey(Track, on_delete=models.PROTECT, related_name="submissions")
    phase = models.ForeignKey(Phase, on_delete=models.PROTECT, related_name="submissions")
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="submissions")
    artefact = models.ForeignKey(Artefact, on_delete=models.PROTECT, related_name="submissions")
    # From tiltyard.yaml, validated when the file was accepted.
    name = models.CharField(max_length=80)
    manifest = models.JSONField(default=dict)
    original_filename = models.CharField(max_length=255)
    is_baseline = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["competition", "owner", "-created_at"])]

    def __str__(self) -> str:
        return self.name


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
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    # What the page shows while an evaluation is under way.
    current_suite = models.CharField(max_length=120, blank=True)
    items_done = models.PositiveIntegerField(default=0)
    items_total = models.PositiveIntegerField(default=0)

    image_digest = models.CharField(max_length=80, blank=True)
    build_log = models.TextField(blank=True)  # capped; for the owner and the organisers
    server_log = models.TextField(blank=True)  # capped; of open suites only: a hidden suite's questions could be in it

    # The ranking score, and open − hidden with its 95 % interval; null until scored.
    score = models.FloatField(null=True, blank=True)
    score_low = models.FloatField(null=True, blank=True)
    score_high = models.FloatField(null=True, blank=True)
    gap = models.FloatField(null=True, blank=True)
    gap_low = models.FloatField(null=True, blank=True)
    gap_high = models.FloatField(null=True, blank=True)

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


class RunEvent(models.Model):
    """The append-only history of a run, which its page shows as a timeline."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    attempt = models.PositiveSmallIntegerField()
    at = models.DateTimeField(default=timezone.now)
    state = models.CharField(max_length=12, choices=RunState.choices)
    message = models.CharField(max_length=300)  # public: no hidden text, no path, no host name

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.state}: {self.message}"


class SuiteResult(models.Model):
    """What one suite gave for one run."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="suite_results")
    suite = models.ForeignKey(Suite, on_delete=models.PROTECT, related_name="results")
    score = models.FloatField()
    low = models.FloatField()
    high = models.FloatField()
    repro_hash = models.CharField(max_length=80)
    wall_s = models.FloatField()
    result = models.JSONField()  # result.json, whole

    class Meta:
        ordering = ["suite__order"]
        constraints = [models.UniqueConstraint(fields=["run", "suite"], name="one_result_per_suite")]

    def __str__(self) -> str:
        return f"{self.suite}: {self.score:.3f}"


class TaskResult(models.Model):
    """One task's score, and the scores of its items in their fixed order, from which paired intervals are made."""

    suite_result = models.ForeignKey(SuiteResult, on_delete=models.CASCADE, related_name="tasks")
    name = models.CharField(max_length=80)
    title = models.CharField(max_length=120)
    family = models.CharField(max_length=80)
    weight = models.FloatField()
    items = models.PositiveIntegerField()
    score = models.FloatField()
    low = models.FloatField()
    high = models.FloatField()
    format_failures = models.PositiveIntegerField(default=0)
    item_failures = models.JSONField(default=dict)
    item_scores = models.JSONField(default=list)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.title}: {self.score:.3f}"


class Sample(models.Model):
    """One question of an *open* suite with the answer given. Hidden suites have no rows here."""

    task_result = models.ForeignKey(TaskResult, on_delete=models.CASCADE, related_name="samples")
    index = models.PositiveIntegerField()
    prompt = models.TextField()
    answer = models.TextField()
    expected = models.TextField()
    score = models.FloatField()
    failure = models.CharField(max_length=40, blank=True)

    class Meta:
        ordering = ["index"]
        constraints = [models.UniqueConstraint(fields=["task_result", "index"], name="one_sample_per_item")]

    def __str__(self) -> str:
        return f"{self.task_result.name} #{self.index}"
