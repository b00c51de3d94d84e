"""What is computed once and kept: a board's statistics, and what the Ladder has published."""

from django.db import models
from django.utils import timezone

from tiltyard.competitions.models import Track
from tiltyard.submissions.models import Run


class BoardStatistics(models.Model):
    """The statistics of one track's board, computed after a change of the board and never in a page's request.

    `fingerprint` names what they were computed from: the runs on the board, the suites with their weights, the rule of
    scoring and the reference baselines. A board with another fingerprint shows none of it.
    """

    track = models.OneToOneField(Track, on_delete=models.CASCADE, related_name="statistics")
    fingerprint = models.CharField(max_length=64)
    document = models.JSONField()  # as statistics.BoardDocument
    flagged = models.JSONField(default=list)  # the runs whose gap is marked, beside a document of up to megabytes
    seconds = models.FloatField()  # what computing took
    computed_at = models.DateTimeField(default=timezone.now)
    # What the job found when it last compared fingerprints: while it is the same, the board need not be looked at.
    basis = models.CharField(max_length=64, blank=True)
    checked_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"Statistics of {self.track}"


class BoardSummary(models.Model):
    """What lists say of a board: how many are on it and who leads, as everybody may see it.

    `feedback` is what was shown of hidden scores: under another one, nothing of `top` may be shown.
    """

    track = models.OneToOneField(Track, on_delete=models.CASCADE, related_name="summary")
    key = models.CharField(max_length=64)  # names the board that it was made from
    feedback = models.CharField(max_length=8)
    entries = models.PositiveIntegerField()
    top = models.JSONField(default=list)  # as summaries.Leader, best first

    def __str__(self) -> str:
        return f"Summary of {self.track}"


class LadderScore(models.Model):
    """What the Ladder published when a run was scored. Rows are added and never changed, so no value moves backwards.

    A participant climbs alone: `number` counts their runs on the same hidden suites in one track, from 1, and the
    uniqueness of the four makes two workers that score at once take one after the other.
    """

    run = models.OneToOneField(Run, on_delete=models.CASCADE, related_name="ladder")
    track = models.ForeignKey(Track, on_delete=models.CASCADE, related_name="ladder_scores")
    participant = models.CharField(max_length=100)
    hidden_basis = models.CharField(max_length=64)
    number = models.PositiveIntegerField()
    value = models.FloatField()  # the best hidden score published so far, 0..1
    step = models.FloatField()
    made_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["track", "participant", "hidden_basis", "number"], name="one_rung_at_a_time"
            )
        ]

    def __str__(self) -> str:
        return f"{self.participant} #{self.number}: {self.value:.3f}"
