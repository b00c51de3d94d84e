"""What organisers did, kept for whoever has to find out later."""

from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone


class AuditEntry(models.Model):
    """One act of an organiser: a request that changed something, or a command on the server. Never changed.

    It names the thing and the act. What was typed is not kept: passwords, pages and questions could be in it.
    """

    class Source(models.TextChoices):
        ADMIN = "admin", "Admin"
        API = "api", "API"
        PAGE = "page", "Page"
        COMMAND = "command", "Command"

    at = models.DateTimeField(default=timezone.now, db_index=True)
    # A name as well as a key: an account may be removed, its acts may not.
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    actor_name = models.CharField(max_length=150)
    source = models.CharField(max_length=10, choices=Source.choices)
    address = models.CharField(max_length=45, blank=True)
    act = models.CharField(max_length=200)
    objects_named = models.JSONField(default=list)  # ids, or texts of what was changed
    status = models.PositiveSmallIntegerField(null=True)  # of the answer; none for a command

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.actor_name}: {self.act}"

    def save(self, *args: Any, **options: Any) -> None:
        """Raises ValueError on a second save."""
        if not self._state.adding:
            raise ValueError("An audit entry is not changed.")
        super().save(*args, **options)
