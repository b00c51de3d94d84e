"""A run's history as the stages that its page shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tiltyard.submissions.models import Run, RunEvent
from tiltyard.submissions.states import FINAL, RunState

_STAGES = (
    (RunState.QUEUED, "Queued"),
    (RunState.PREPARING, "Preparing"),
    (RunState.BUILDING, "Image"),
    (RunState.EVALUATING, "Evaluation"),
    (RunState.SCORING, "Scoring"),
)
_ENDS = {RunState.SCORED: "Scored", RunState.FAILED: "Failed", RunState.CANCELLED: "Cancelled"}


class Status(StrEnum):
    DONE = "done"
    NOW = "now"
    TODO = "todo"
    FAILED = "failed"


@dataclass(frozen=True)
class Stage:
    """One dot of the timeline; `duration_s` is None for a stage that was not reached and for the end itself."""

    label: str
    status: Status
    duration_s: float | None


def stages(run: Run, events: Sequence[RunEvent], now: datetime) -> list[Stage]:
    """The stages of the latest attempt, in order, the end included.

    A stage begins with the first event that names its state and lasts until the next one reached begins.
    """
    entered = _entered(run, events)
    state = RunState(run.state)
    shown = []
    for place, (stage, label) in enumerate(_STAGES):
        begun = entered.get(stage)
        later = [entered[other] for other, _ in _STAGES[place + 1 :] if other in entered]
        ended = later[0] if later else run.finished_at
        status = Status.NOW if state == stage else Status.DONE if begun and (later or ended) else Status.TODO
        duration_s = ((ended or now) - begun).total_seconds() if begun else None
        shown.append(Stage(label, status, duration_s))
    return [*shown, _end(state)]


def elapsed_s(run: Run, now: datetime) -> float:
    """Since the upload was accepted, or how long it took in all."""
    return ((run.finished_at or now) - run.queued_at).total_seconds()


def _entered(run: Run, events: Sequence[RunEvent]) -> dict[RunState, datetime]:
    """When each state was entered since the run was last queued: an attempt that came to nothing is not shown."""
    entered = {RunState.QUEUED: run.queued_at}
    for event in events:
        state = RunState(event.state)
        if state == RunState.QUEUED:
            entered = {state: event.at}
        elif state not in FINAL:
            entered.setdefault(state, event.at)
    return entered


def _end(state: RunState) -> Stage:
    if state == RunState.SCORED:
        return Stage(_ENDS[state], Status.DONE, None)
    if state in FINAL:
        return Stage(_ENDS[state], Status.FAILED, None)
    return Stage("Result", Status.TODO, None)
