"""The GPUs of all hosts, each with a lease: two workers that were given one UUID never use it at once."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import F, Q

REASON_CHARS = 300


class Gpu(models.Model):
    """One device, or one MIG part of one, by the UUID that its driver gives it.

    The term is the lease's fencing token: it grows with every holder, and who renews or gives back names its own.
    """

    uuid = models.CharField(max_length=90, primary_key=True)
    holder = models.CharField(max_length=120, blank=True)
    term = models.PositiveIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    quarantined_at = models.DateTimeField(null=True, blank=True)
    quarantine_reason = models.CharField(max_length=REASON_CHARS, blank=True)

    class Meta:
        ordering = ["uuid"]
        verbose_name = "GPU"

    def __str__(self) -> str:
        return self.uuid

    @classmethod
    def acquire(cls, uuid: str, holder: str, now: datetime) -> "Gpu | None":
        """The lease, for RUN_LEASE_S from now; None while another holder's lasts, or the GPU is in quarantine."""
        gpu, _ = cls.objects.get_or_create(uuid=uuid)
        free = Q(lease_expires_at=None) | Q(lease_expires_at__lt=now)
        taken = cls.objects.filter(free, uuid=uuid, term=gpu.term, quarantined_at=None).update(
            holder=holder[:120], term=F("term") + 1, lease_expires_at=now + timedelta(seconds=settings.RUN_LEASE_S)
        )
        if not taken:
            return None
        gpu.refresh_from_db()
        return gpu

    def renew(self, now: datetime) -> bool:
        """False when the lease ran out and another holder has the GPU."""
        expires_at = now + timedelta(seconds=settings.RUN_LEASE_S)
        return bool(self._mine().update(lease_expires_at=expires_at))

    def give_back(self) -> bool:
        return bool(self._mine().update(holder="", lease_expires_at=None))

    def quarantine(self, reason: str, now: datetime) -> bool:
        """Let nothing run on it until an organiser has looked; False when it is another holder's by now."""
        return bool(self._mine().update(quarantined_at=now, quarantine_reason=reason[:REASON_CHARS]))

    def release(self) -> None:
        """End the quarantine."""
        Gpu.objects.filter(pk=self.pk).update(quarantined_at=None, quarantine_reason="")

    def _mine(self) -> models.QuerySet["Gpu"]:
        return Gpu.objects.filter(pk=self.pk, term=self.term)
