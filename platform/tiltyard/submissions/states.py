"""The states of a run, what each may turn into and how long it may last: one table, `STATES`.

    queued ──> preparing ──> building ──> evaluating ──> scoring ──> scored
       ^           │             │             │            │
       └───────────┴─────────────┴─────────────┴────────────┘  our fault, or a worker that stops: tried again
    from every state that is not final: ──> failed, ──> cancelled

A state that is not final has a deadline. Whoever notices that it has passed, the worker's own heartbeat or the reaper,
takes the run out of it, so none can stay under way for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass
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


class EventKind(models.TextChoices):
    """What an entry of a run's history tells of."""

    QUEUED = "queued", "Queued"
    CLAIMED = "claimed", "A worker took it"
    STAGE = "stage", "A stage began"
    REQUEUED = "requeued", "Queued again"
    CANCEL_REQUESTED = "cancel_requested", "Cancellation requested"
    VERDICT = "verdict", "Verdict"


@dataclass(frozen=True)
class Allowance:
    """How long the stages of one run may take, in seconds: the track's limits and the site's settings."""

    queue_s: float
    build_s: float
    suite_s: float  # start and evaluation of one suite
    suites: int
    slack_s: float  # for what a stage does beside: checks, loading and digesting an image, starting containers


@dataclass(frozen=True)
class StateRule:
    """One row of the table."""

    to: frozenset[RunState]
    deadline_s: Callable[[Allowance], float] | None  # from the state's beginning on; None: final


def _active(*following: RunState, deadline_s: Callable[[Allowance], float]) -> StateRule:
    return StateRule(frozenset({RunState.QUEUED, RunState.FAILED, RunState.CANCELLED, *following}), deadline_s)


_FINAL: Final = StateRule(frozenset(), None)
STATES: Final[dict[RunState, StateRule]] = {
    RunState.QUEUED: StateRule(
        frozenset({RunState.PREPARING, RunState.FAILED, RunState.CANCELLED}), lambda allowed: allowed.queue_s
    ),
    RunState.PREPARING: _active(RunState.BUILDING, deadline_s=lambda allowed: allowed.slack_s),
    RunState.BUILDING: _active(RunState.EVALUATING, deadline_s=lambda allowed: allowed.build_s + allowed.slack_s),
    RunState.EVALUATING: _active(
        RunState.SCORING, deadline_s=lambda allowed: allowed.suites * allowed.suite_s + allowed.slack_s
    ),
    RunState.SCORING: _active(RunState.SCORED, deadline_s=lambda allowed: allowed.slack_s),
    RunState.SCORED: _FINAL,
    RunState.FAILED: _FINAL,
    RunState.CANCELLED: _FINAL,
}

FINAL: Final = frozenset(state for state, rule in STATES.items() if rule.deadline_s is None)
ACTIVE: Final = frozenset(STATES) - FINAL - {RunState.QUEUED}


def kind_of(state: RunState, attempt: int) -> EventKind:
    """The kind of the event that records a run's entering `state`."""
    if state in FINAL:
        return EventKind.VERDICT
    if state == RunState.QUEUED:
        return EventKind.REQUEUED if attempt else EventKind.QUEUED
    return EventKind.CLAIMED if state == RunState.PREPARING else EventKind.STAGE
