"""The states of a run and the transitions between them, in one table."""

from typing import Final

from django.db import models


class RunState(models.TextChoices):
    QUEUED = "queued", "Queued"
    PREPARING = "preparing", "Preparing"
    BUILDING = "building", "Building the image"
    EVALUATING = "evaluating", "Evaluating"
    SCORING = "scoring", "Scoring"
    SCORED = "scored", "Scored"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class FailureReason(models.TextChoices):
    """Why a run failed. All but the last are the submission's and count against its owner's quota."""

    IMAGE_REJECTED = "image_rejected", "Image rejected"
    BUILD_FAILED = "build_failed", "Build failed"
    START_TIMEOUT = "start_timeout", "Did not get ready in time"
    PROTOCOL_ERROR = "protocol_error", "Protocol error"
    RESPONSE_TOO_LARGE = "response_too_large", "Response too large"
    OUT_OF_MEMORY = "out_of_memory", "Out of memory"
    TIME_LIMIT = "time_limit", "Time limit"
    CRASHED = "crashed", "Crashed"
    INFRA_ERROR = "infra_error", "Platform error"


FINAL: Final = frozenset({RunState.SCORED, RunState.FAILED, RunState.CANCELLED})
ACTIVE: Final = frozenset({RunState.PREPARING, RunState.BUILDING, RunState.EVALUATING, RunState.SCORING})

_ENDS: Final = frozenset({RunState.FAILED, RunState.CANCELLED, RunState.QUEUED})  # QUEUED: our fault, tried again
TRANSITIONS: Final[dict[RunState, frozenset[RunState]]] = {
    RunState.QUEUED: frozenset({RunState.PREPARING, RunState.FAILED, RunState.CANCELLED}),
    RunState.PREPARING: _ENDS | {RunState.BUILDING},
    RunState.BUILDING: _ENDS | {RunState.EVALUATING},
    RunState.EVALUATING: _ENDS | {RunState.SCORING},
    RunState.SCORING: _ENDS | {RunState.SCORED},
    RunState.SCORED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}
