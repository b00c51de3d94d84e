"""How a run can end: scored, the submission's fault, our fault, or cancelled.

The three kinds of failure stay three kinds in code. Their messages are shown to people, so each says what happened
and, where one can be named, what to do.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a run failed. All but `INFRA_ERROR` are the submission's."""

    IMAGE_REJECTED = "image_rejected"
    BUILD_FAILED = "build_failed"
    START_TIMEOUT = "start_timeout"
    PROTOCOL_ERROR = "protocol_error"
    RESPONSE_TOO_LARGE = "response_too_large"
    OUT_OF_MEMORY = "out_of_memory"
    TIME_LIMIT = "time_limit"
    CRASHED = "crashed"
    INFRA_ERROR = "infra_error"


class SandboxError(Exception):
    """The base of every way in which the sandbox ends a run early; `message` is for a person in a hurry."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SubmissionFault(SandboxError):  # noqa: N818  a fault is a verdict, not a bug
    """The submission broke a rule or a limit: final, and charged to its owner's quota."""

    def __init__(self, reason: Reason, message: str) -> None:
        if reason is Reason.INFRA_ERROR:
            raise ValueError("infra_error is ours: raise InfraFault")
        super().__init__(message)
        self.reason = reason


class InfraFault(SandboxError):  # noqa: N818  a fault is a verdict, not a bug
    """Something of ours failed: the run may be tried again, and costs its owner nothing."""


class Cancelled(SandboxError):  # noqa: N818  a fault is a verdict, not a bug
    """Someone asked the run to stop, and it did."""

    def __init__(self, message: str = "The run was cancelled.") -> None:
        super().__init__(message)
