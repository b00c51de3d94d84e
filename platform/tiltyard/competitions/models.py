"""A competition as its bundle describes it: tracks, phases, suites and pages."""

from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Self

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from tiltyard_eval.suite import SuiteError
from tiltyard_eval.suite.reading import SUITE_FILE, read_yaml_file
from tiltyard_sandbox.limits import Limits


@lru_cache(maxsize=128)
def _commitment_in(suite_dir: Path) -> str | None:
    """Kept: YAML takes milliseconds, and nothing rewrites a suite's folder. Raises SuiteError, which is not kept."""
    value = read_yaml_file(suite_dir, SUITE_FILE).get("commitment")
    return value if isinstance(value, str) else None


def default_scoring() -> dict[str, object]:
    return {"rule": "weighted_mean"}


def default_feedback() -> dict[str, object]:
    return {"mode": "full"}


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
    # From which images may be taken that a submission names, pinned by their digest; empty: from none.
    registries = models.JSONField(default=list, blank=True)
    # The largest file that may be uploaded; 0 leaves it to the site's UPLOAD_BYTES_MAX.
    upload_bytes_max = models.BigIntegerField(default=0)
    # Handed to the evaluator with every run, here and on a participant's machine, so that both ask alike.
    evaluation_seed = models.PositiveIntegerField(default=0)
    # Names of organisers' entries that are known to be honest: what others lose on hidden questions is held against
    # what these lose. Empty: every entry that an organiser handed in as a baseline.
    reference_baselines = models.JSONField(default=list)
    scoring = models.JSONField(default=default_scoring)  # as ScoringEntry.stored()
    feedback = models.JSONField(default=default_feedback)  # as FeedbackEntry.stored()
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

    def is_reference(self, entry_name: str) -> bool:
        """Whether an organiser's entry of this name is one that gaps are compared with."""
        return not self.reference_baselines or entry_name in self.reference_baselines


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
    trusted_submissions = models.BooleanField(default=False)  # its servers' log-likelihoods are believed
    # The fields of tiltyard_sandbox.limits.Limits but for the GPU's UUID, which each worker knows of itself.
    limits = models.JSONField(default=dict)
    columns = models.JSONField(default=list)  # names of columns.COLUMNS that the board shows beside the score
    rank_by = models.JSONField(null=True, blank=True)  # as RankByEntry; None: by the score
    order = models.PositiveSmallIntegerField(default=0)
    # Grows with every change of what is on the board, in the same transaction; see leaderboards/changes.py.
    board_revision = models.PositiveBigIntegerField(default=0, editable=False)

    class Meta:
        ordering = ["order"]
        constraints = [models.UniqueConstraint(fields=["competition", "slug"], name="one_track_per_slug")]

    def __str__(self) -> str:
        return f"{self.competition}: {self.title}"

    def sandbox_limits(
        self, gpu_uuid: str | None = None, cpuset: str | None = None, runtime: str | None = None
    ) -> Limits:
        """The limits on a machine; what is the machine's own is never the competition's to say."""
        return Limits.from_mapping({**self.limits, "gpu_uuid": gpu_uuid, "cpuset": cpuset, "runtime": runtime})


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
    def commitment(self) -> str | None:
        """The hash of the secret that made the suite; None when no secret did, or when its files are not here."""
        try:
            return _commitment_in(self.directory)
        except SuiteError:
            return None

    @property
    def item_count(self) -> int:
        return sum(int(task["items"]) for task in self.tasks)
