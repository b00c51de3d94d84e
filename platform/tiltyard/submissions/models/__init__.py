"""Submissions, their runs, and what the runs produced."""

from tiltyard.submissions.models.results import Sample, SuiteResult, TaskResult
from tiltyard.submissions.models.run import Run, RunEvent, RunQuerySet
from tiltyard.submissions.models.submission import Artefact, Submission

__all__ = ["Artefact", "Run", "RunEvent", "RunQuerySet", "Sample", "Submission", "SuiteResult", "TaskResult"]
