"""An upload that can be resumed: who sends which file to which track, and what became of it."""

import uuid
from datetime import datetime, timedelta
from typing import ClassVar, Self

from django.conf import settings
from django.db import models
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Track
from tiltyard.submissions.models import Submission


class UploadQuerySet(models.QuerySet["Upload"]):
    def unfinished(self) -> Self:
        """Those whose file is still here."""
        return self.filter(state__in=Upload.UNFINISHED)

    def expired(self, now: datetime) -> Self:
        return self.unfinished().filter(expires_at__lte=now)


class Upload(models.Model):
    """One file on its way. How much of it has arrived is not in the row: the file's own length is the truth."""

    class State(models.TextChoices):
        RECEIVING = "receiving", "Receiving"
        HELD = "held", "Complete, but nothing may be handed in now"
        ACCEPTED = "accepted", "Accepted"
        REFUSED = "refused", "Refused"
        EXPIRED = "expired", "Expired"

    UNFINISHED: ClassVar = (State.RECEIVING, State.HELD)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="uploads")
    competition = models.ForeignKey(Competition, on_delete=models.CASCADE, related_name="uploads")
    track = models.ForeignKey(Track, on_delete=models.CASCADE, related_name="uploads")
    filename = models.CharField(max_length=255)
    size_bytes = models.BigIntegerField()
    declared_sha256 = models.CharField(max_length=64, blank=True)  # of the whole file, if the client said it
    state = models.CharField(max_length=10, choices=State.choices, default=State.RECEIVING)
    detail = models.TextField(blank=True)  # for the participant: why it is held or refused
    submission = models.ForeignKey(Submission, on_delete=models.SET_NULL, null=True, blank=True, related_name="uploads")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()

    objects = UploadQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["owner", "state"]),
            models.Index(fields=["state", "expires_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.filename} ({self.state})"

    @staticmethod
    def expiry(now: datetime) -> datetime:
        """When an upload ends that nothing is added to after `now`."""
        return now + timedelta(seconds=settings.UPLOAD_EXPIRY_S)
