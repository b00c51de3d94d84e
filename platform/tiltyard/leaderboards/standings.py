"""A run as boards and their statistics look at it: its row without the models.

A board of two thousand entries is made anew with every score; as runs, submissions and users Django would take most of
that time to make them.
"""

import uuid
from dataclasses import dataclass, field
from datetime import datetime

from tiltyard.submissions.models import ResourceUse


@dataclass(slots=True)
class Standing:
    """The columns of a run that a board shows, with its submission, its participant and what the Ladder published."""

    run_id: uuid.UUID
    name: str
    is_baseline: bool
    submitted_at: datetime
    owner_id: int
    owner_name: str
    score: float | None
    score_low: float | None
    score_high: float | None
    open_score: float | None
    open_low: float | None
    open_high: float | None
    hidden_score: float | None
    hidden_low: float | None
    hidden_high: float | None
    gap: float | None
    gap_low: float | None
    gap_high: float | None
    ladder: float | None
    resources: ResourceUse | None = field(default=None, kw_only=True)  # only what the track's columns show of it


# Where they stand, in the same order, from a run on.
FIELDS = (
    "pk",
    "submission__name",
    "submission__is_baseline",
    "submission__created_at",
    "submission__owner_id",
    "submission__owner__username",
    "score",
    "score_low",
    "score_high",
    "open_score",
    "open_low",
    "open_high",
    "hidden_score",
    "hidden_low",
    "hidden_high",
    "gap",
    "gap_low",
    "gap_high",
    "ladder__value",
)
