"""From what happened to a verdict: the evaluator's own report, weighed with how the containers ended."""

from dataclasses import dataclass

from tiltyard_sandbox.pair import EndedBy, PairOutcome
from tiltyard_sandbox.verdicts import Reason

SCORED_EXIT = 0
SUBMISSION_EXIT = 2


@dataclass(frozen=True)
class Verdict:
    """Scored when `reason` is None."""

    reason: Reason | None
    message: str


@dataclass(frozen=True)
class ReportedFailure:
    """`failure` of the evaluator's result.json."""

    reason: str
    message: str


def decide(outcome: PairOutcome, reported: ReportedFailure | None) -> Verdict:
    """The verdict on a finished pair.

    In this order: a score stands whatever happened after it; a death of the submission explains every complaint of the
    evaluator; then the deadline; then the evaluator's own reason; and whatever is left is ours.
    """
    if outcome.evaluator_exit == SCORED_EXIT and reported is None:
        return Verdict(None, "Scored.")
    if outcome.submission_oom:
        return Verdict(Reason.OUT_OF_MEMORY, "The server used more memory than its limit and the kernel killed it.")
    if outcome.submission_exit is not None:
        return Verdict(Reason.CRASHED, _crash_message(outcome.submission_exit))
    if outcome.ended_by is EndedBy.DEADLINE:
        return Verdict(Reason.TIME_LIMIT, "The evaluation did not finish within its time limit.")
    if outcome.evaluator_exit == SUBMISSION_EXIT and reported is not None and _is_submissions(reported.reason):
        return Verdict(Reason(reported.reason), reported.message)
    return Verdict(Reason.INFRA_ERROR, _our_message(outcome, reported))


def _our_message(outcome: PairOutcome, reported: ReportedFailure | None) -> str:
    if outcome.evaluator_oom:
        return "The evaluator ran out of memory."
    detail = f": {reported.message}" if reported else "."
    return f"The evaluator ended with status {outcome.evaluator_exit}{detail}"


def _is_submissions(reason: str) -> bool:
    return reason in set(Reason) - {Reason.INFRA_ERROR}


def _crash_message(exit_code: int) -> str:
    if exit_code == 0:
        return "The server exited (status 0) while it was still needed. See the end of its log."
    if exit_code > 128:
        return f"The server was killed by signal {exit_code - 128} (status {exit_code}). See the end of its log."
    return f"The server exited with status {exit_code}. See the end of its log."
