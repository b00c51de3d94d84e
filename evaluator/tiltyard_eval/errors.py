"""The ways an evaluation can fail, and whose fault each is.

Three kinds stay apart: a fault in one answer (`AnswerFault`, the item scores nothing), the end of the whole run
(`RunFailed`, with a reason the platform knows), and the wish of a person or of the worker to stop (`Cancelled`).
"""

from typing import Final

# The reasons that the evaluator can find by itself; the sandbox adds its own (out of memory, build failed, ...).
SUBMISSION_REASONS: Final = frozenset(
    {
        "image_rejected",
        "build_failed",
        "start_timeout",
        "protocol_error",
        "response_too_large",
        "out_of_memory",
        "time_limit",
        "crashed",
    }
)
OUR_REASONS: Final = frozenset({"infra_error", "cancelled"})
REASONS: Final = SUBMISSION_REASONS | OUR_REASONS

EXIT_SCORED: Final = 0
EXIT_SUBMISSION: Final = 2
EXIT_OURS: Final = 3


class RunFailed(Exception):  # noqa: N818 - names the event, as the platform's verdicts do
    """The run ends without a score.

    Args:
        reason: One of `REASONS`.
        message: One or two sentences for the participant. Never holds a question, a gold answer, or text that the
            server wrote after it had seen one.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def exit_status(self) -> int:
        return EXIT_SUBMISSION if self.reason in SUBMISSION_REASONS else EXIT_OURS


class AnswerFault(Exception):  # noqa: N818 - see RunFailed
    """One answer of the server that cannot be accepted.

    Args:
        kind: A short stable name, counted per task in the result (`invalid_json`, `wrong_count`, ...).
        message: What was expected and what came, without the server's own words.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Unreachable(AnswerFault):
    """No complete answer came over the connection: refused, reset, or closed early."""

    def __init__(self, message: str) -> None:
        super().__init__("connection", message)


class WrongStatus(AnswerFault):
    """A complete answer with a status other than 200."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__("http_status", message or f"the server answered with status {status} instead of 200")
        self.status = status


class Busy(WrongStatus):
    """The server asked to be left alone for a while (429 or 503), for `retry_after_s` seconds where it said so."""

    def __init__(self, status: int, retry_after_s: float = 0.0) -> None:
        super().__init__(status, f"the server kept answering with status {status}")
        self.retry_after_s = retry_after_s


class Cancelled(KeyboardInterrupt):
    """SIGTERM or SIGINT. A KeyboardInterrupt, because asyncio lets only that one through its callbacks."""
