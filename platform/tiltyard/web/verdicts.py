"""What each verdict means for the person who reads it, and what to do next."""

from dataclasses import dataclass

from tiltyard.submissions.states import FailureReason


@dataclass(frozen=True)
class Advice:
    meaning: str
    next_step: str


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
        "GET /health must answer 200 on the port in TILTYARD_PORT within the start limit. See the server log.",
    ),
    FailureReason.PROTOCOL_ERROR: Advice(
        "The server answered something that the protocol does not allow.",
        "Run the same evaluation on your machine with “tiltyard evaluate”; it shows the request and the answer.",
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
        "The evaluation took longer than the track allows.",
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


def advice_for(failure_reason: str) -> Advice | None:
    """The advice for a failed run; None when the reason is empty."""
    return ADVICE[FailureReason(failure_reason)] if failure_reason else None
