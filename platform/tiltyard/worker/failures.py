"""What a person reads when a run fails."""

from typing import Final

from tiltyard_sandbox.verdicts import Reason

LOG_END_LINES: Final = 15

# On a hidden suite nothing that the submission printed or the evaluator observed may come out: a server can be
# written to put the question that it was asked into its exit status or its last words.
HIDDEN: Final = {
    Reason.IMAGE_REJECTED: "The image was rejected.",
    Reason.BUILD_FAILED: "The build failed.",
    Reason.START_TIMEOUT: "The server did not get ready in time.",
    Reason.PROTOCOL_ERROR: "The server's answers broke the protocol.",
    Reason.RESPONSE_TOO_LARGE: "The server sent an answer that is too large.",
    Reason.OUT_OF_MEMORY: "The server used more memory than its limit.",
    Reason.TIME_LIMIT: "The evaluation did not finish within its time limit.",
    Reason.CRASHED: "The server ended while it was still needed.",
}
HIDDEN_NOTE: Final = "This happened on a hidden suite, so no details are shown. Try the open suite: tiltyard evaluate."

INFRA: Final = (
    "The platform failed, not your submission; this does not count against your quota. "
    "Ask the organisers to run it again."
)


def hidden_message(reason: Reason) -> str:
    return f"{HIDDEN[reason]} {HIDDEN_NOTE}"


def with_log_end(message: str, log_end: str) -> str:
    """The message, and the end of the log that explains it."""
    return f"{message}\n\nThe log ends:\n{log_end}" if log_end.strip() else message
