"""What a run used, measured from outside."""

from decimal import Decimal
from typing import overload

from django.db import models

from tiltyard.submissions.models.run import Run


class ResourceUse(models.Model):
    """The evaluation of one run over all its suites; null for what was not measured, which is not nothing.

    For participants only `shown()` is meant: a server could put a hidden question into the last digits of what it uses.
    A leaderboard's column comes with the runs: `Run.objects.select_related("resources")`.
    """

    run = models.OneToOneField(Run, on_delete=models.CASCADE, related_name="resources", primary_key=True)
    attempt = models.PositiveSmallIntegerField()
    wall_s = models.FloatField()  # from the first container's start to the last one's removal, of every suite
    cpu_s = models.FloatField(null=True)
    memory_peak_bytes = models.BigIntegerField(null=True)
    gpu_utilisation = models.FloatField(null=True)  # 0..1, mean
    gpu_memory_peak_bytes = models.BigIntegerField(null=True)
    energy_j = models.FloatField(null=True)  # of the GPU
    tokens = models.BigIntegerField(null=True)  # in the answers, counted alike for every submission; see speed.py
    tokens_per_s = models.FloatField(null=True)

    FIGURES = (
        "wall_s",
        "cpu_s",
        "memory_peak_bytes",
        "gpu_utilisation",
        "gpu_memory_peak_bytes",
        "energy_j",
        "tokens_per_s",
    )

    def __str__(self) -> str:
        return f"{self.run}: {self.wall_s:.0f} s"

    def shown(self) -> dict[str, float | None]:
        """The figures with two digits that count, by name; None for what was not measured."""
        return {name: two_digits(getattr(self, name)) for name in self.FIGURES}


@overload
def two_digits(value: None) -> None: ...
@overload
def two_digits(value: float) -> float: ...
def two_digits(value: float | None) -> float | None:
    """Rounded to two digits that count."""
    return None if value is None else float(f"{Decimal(value):.2g}")
