"""A competition as its bundle describes it: tracks, phases, suites and pages."""

from datetime import datetime
from pathlib import Path
from typing import Self

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from tiltyard_sandbox.limits import Limits


class CompetitionQuerySet(models.QuerySet["Competition"]):
    def visible(self) -> Self:
        return self.filter(is_public=True)


class Competition(models.Model):
    """What a bundle's competition.yaml says. Only an import changes it."""

    slug = models.SlugField(unique=True)
    title = models.CharField(max_length=120)
    summary = models.CharField(max_length=300)
    is_public = models.BooleanField(default=True)
    allowed_base_models = models.JSONField(default=list)
    allowed_training_data = models.TextField(blank=True)
    # Images that may stand in a submission's FROM; the first is the default for the build argument BASE.
    base_images = models.JSONField(default=list)
    # The largest file that may be uploaded; 0 leaves it to the site's UPLOAD_BYTES_MAX.
    upload_bytes_max = models.BigIntegerField(default=0)
    # Handed to the evaluator with every run, here and on a participant's machine, so that both ask alike.
    evaluation_seed = models.PositiveIntegerField(default=0)
    bundle_sha256 = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = CompetitionQuerySet.as_manager()

    class Meta:
        ordering = ["title"]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("competition", args=[self.slug])

    @property
    def upload_limit_bytes(self) -> int:
        site_limit = int(settings.UPLOAD_BYTES_MAX)
        return min(self.upload_bytes_max, site_limit) if self.upload_bytes_max else site_limit

    def current_phase(self, now: datetime) -> "Phase | None":
        return self.phases.filter(starts_at__lte=now, ends_at__gt=now).order_by("order").first()


class Page(models.Model):
    """One of the competition's own pages, in Markdown: overview, rules, and whatever else the bundle brings."""

    competition = models.ForeignKey(Competition, on_delete=models.CASCADE, related_name="pages")
    slug = models.SlugField()
    title = models.CharField(max_length=80)
    body = models.TextField()
    order = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["order"]
        constraints = [models.UniqueConstraint(fields=["competition", "slug"], name="one_page_per_slug")]

    def __str__(self) -> str:
        return f"{self.competition}: {self.title}"


class Track(models.Model):
    """Hardware and limits under which entries are compared. Entries of different tracks are never ranked together."""

    competition = models.ForeignKey(Competition, on_delete=models.CASCADE, related_name="tracks")
    slug = models.SlugField()
    title = models.CharField(max_length=80)
    hardware = models.CharField(max_length=120, help_text="For people, such as “2 CPU cores, 4 GiB” or “one H100”.")
    queue = models.CharField(
        max_length=40, default="cpu", help_text="The Celery queue whose workers have this hardware."
    )
    needs_gpu = models.BooleanField(default=False)
    # The fields of tiltyard_sandbox.limits.Limits but for the GPU's UUID, which each worker knows of itself.
    limits = models.JSONField(default=dict)
    order = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["order"]
        constraints = [models.UniqueConstraint(fields=["competition", "slug"], name="one_track_per_slug")]

    def __str__(self) -> str:
        return f"{self.competition}: {self.title}"

    def sandbox_limits(self, gpu_uuid: str | None = None) -> Limits:
        return Limits.from_mapping({**self.limits, "gpu_uuid": gpu_uuid})


class Phase(models.Model):
    """A stretch of time with its quotas. A quota of 0 means no limit."""

    competition = models.ForeignKey(Competition, on_delete=models.CASCADE, related_name="phases")
    slug = models.SlugField()
    title = models.CharField(max_length=80)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    daily_quota = models.PositiveIntegerField(default=0)
    total_quota = models.PositiveIntegerField(default=0)
    concurrent_quota = models.PositiveIntegerField(default=2)
    order = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["order", "starts_at"]
        constraints = [models.UniqueConstraint(fields=["competition", "slug"], name="one_phase_per_slug")]

    def __str__(self) -> str:
        return f"{self.competition}: {self.title}"


class Suite(models.Model):
    """A locked task suite. A changed suite is a new row, so that a score never changes its meaning afterwards."""

    class Visibility(models.TextChoices):
        OPEN = "open"
        HIDDEN = "hidden"

    competition = models.ForeignKey(Competition, on_delete=models.CASCADE, related_name="suites")
    name = models.SlugField()
    title = models.CharField(max_length=120)
    version = models.CharField(max_length=40)
    visibility = models.CharField(max_length=6, choices=Visibility.choices)
    sha256 = models.CharField(max_length=64)  # as in suite.lock, hexadecimal digits only
    # Its share in the ranking score; the shares of a competition's active suites are normalised to 1.
    weight = models.FloatField(default=1.0)
    # As in suite.yaml: [{"name", "title", "family", "weight", "items"}]. No question is ever stored in the database.
    tasks = models.JSONField(default=list)
    is_active = models.BooleanField(default=True)
    order = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["order"]
        constraints = [models.UniqueConstraint(fields=["competition", "sha256"], name="one_suite_per_content")]

    def __str__(self) -> str:
        return f"{self.title} {self.version}"

    @property
    def directory(self) -> Path:
        """Where a worker finds the suite's files: a directory named by its hash, which nothing rewrites."""
        return Path(settings.SUITE_DIR) / self.sha256

    @property
    def is_hidden(self) -> bool:
        return self.visibility == self.Visibility.HIDDEN

    @property
    def archive(self) -> Path:
        """An open suite's files as one .tar.gz, for participants to download."""
        return Path(settings.SUITE_DIR) / f"{self.sha256}.tar.gz"

    @property
    def item_count(self) -> int:
        return sum(int(task["items"]) for task in self.tasks)
