"""What a run's suites gave: scores by suite and task, and the samples of open suites."""

from django.db import models

from tiltyard.competitions.models import Suite
from tiltyard.submissions.models.run import Run


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
    signed = models.JSONField(null=True)  # its signed manifest; results from before there was one have none

    class Meta:
        ordering = ["suite__order"]
        constraints = [models.UniqueConstraint(fields=["run", "suite"], name="one_result_per_suite")]

    def __str__(self) -> str:
        return f"{self.suite}: {self.score:.3f}"


class TaskResult(models.Model):
    """One task's score, and the scores of its items in their fixed order, from which intervals are made."""

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
