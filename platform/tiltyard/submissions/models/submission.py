"""What a participant hands in: an immutable file, and the entry that it makes."""

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Phase, Track


class Artefact(models.Model):
    """An uploaded file, immutable and named by its hash, so that the same upload is stored once (see `stores`)."""

    class Kind(models.TextChoices):
        DOCKER_CONTEXT = "docker_context", "Archive with a Dockerfile"
        IMAGE_ARCHIVE = "image_archive", "Image archive"
        IMAGE_REFERENCE = "image_reference", "Image in a registry"

    sha256 = models.CharField(max_length=64, unique=True)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    size_bytes = models.BigIntegerField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    # When somebody last handed it in; some time later it is removed, if no submission refers to it.
    needed_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.sha256[:12]}"

    @property
    def path(self) -> Path:
        """Where it is on the local disk, if that is the store."""
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
