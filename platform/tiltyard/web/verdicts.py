"""What each verdict means for the person who reads it, and what to do next."""

from dataclasses import dataclass

from tiltyard.submissions.models import Run
from tiltyard.submissions.states import FailureReason
from tiltyard.web.templatetags.tiltyard_web import duration


@dataclass(frozen=True)
class Advice:
    """Two sentences; `{start}` and `{evaluate}` stand for the track's limits."""

    meaning: str
    next_step: str


@dataclass(frozen=True)
class Verdict:
    """A failed run as its page explains it; `said` and `log_end` are for the owner alone."""

    meaning: str
    next_step: str
    said: str
    log_end: str


ADVICE: dict[FailureReason, Advice] = {
    FailureReason.IMAGE_REJECTED: Advice(
        "The upload could not be used as an image.",
        "Check the archive, the Dockerfile's FROM and tiltyard.yaml against the message below, then submit again.",
    ),
    FailureReason.BUILD_FAILED: Advice(
        "The image could not be built.",
        "The end of the build log names the step that failed. Builds have no network: copy in what they need.",
    ),
    FailureReason.START_TIMEOUT: Advice(
        "The server was not ready in time.",
        "GET /health must answer 200 on the port in TILTYARD_PORT within {start}. See the server log.",
    ),
    FailureReason.PROTOCOL_ERROR: Advice(
        "The server answered something that the protocol does not allow.",
        "Below stands what was asked and what came. Try the same on your machine: “tiltyard evaluate”.",
    ),
    FailureReason.RESPONSE_TOO_LARGE: Advice(
        "The server sent an answer that is larger than allowed.",
        "Respect max_tokens and end the text before the first stop string.",
    ),
    FailureReason.OUT_OF_MEMORY: Advice(
        "The container needed more memory than the track allows.",
        "Load smaller or quantised weights, or answer fewer requests at once.",
    ),
    FailureReason.TIME_LIMIT: Advice(
        "The evaluation took longer than the track allows: {evaluate} for each suite.",
        "Batch the requests that arrive together, and generate no more tokens than asked for.",
    ),
    FailureReason.CRASHED: Advice(
        "The server stopped while it was being asked.",
        "The end of the server log usually shows the exception.",
    ),
    FailureReason.INFRA_ERROR: Advice(
        "Something failed on our side, and trying again did not help.",
        "This run does not count against your quota. Submit again; if it keeps happening, tell the organisers.",
    ),
}


def verdict_of(run: Run) -> Verdict | None:
    """What a failed run's page says; None for a run that did not fail."""
    if not run.failure_reason:
        return None
    advice = ADVICE[FailureReason(run.failure_reason)]
    limits = run.submission.track.sandbox_limits()
    values = {"start": duration(limits.start_s), "evaluate": duration(limits.evaluate_s)}
    said, _, log_end = run.failure_message.partition("\n\n")
    return Verdict(advice.meaning.format(**values), advice.next_step.format(**values), said, log_end)
