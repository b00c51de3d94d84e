"""Submissions, their runs, and what the runs produced."""

from tiltyard.submissions.models.events import RunEvent
from tiltyard.submissions.models.gpus import Gpu
from tiltyard.submissions.models.resources import ResourceUse
from tiltyard.submissions.models.results import Sample, SuiteResult, TaskResult
from tiltyard.submissions.models.run import Run, RunQuerySet
from tiltyard.submissions.models.store import StoreOwner
from tiltyard.submissions.models.submission import Artefact, Submission

__all__ = [
    "Artefact",
    "Gpu",
    "ResourceUse",
    "Run",
    "RunEvent",
    "RunQuerySet",
    "Sample",
    "StoreOwner",
    "Submission",
    "SuiteResult",
    "TaskResult",
]
