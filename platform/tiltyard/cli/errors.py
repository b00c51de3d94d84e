"""The command's errors: one clear text that names what to do, one exit code, one JSON shape."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What `tiltyard` exits with; scripts rely on these numbers (docs/reference/cli.md)."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    SUBMISSION_FAILED = 3
    PLATFORM = 4
    REFUSED = 5
    UNREACHABLE = 6
    INTERRUPTED = 130


KINDS = {
    ExitCode.UNEXPECTED: "unexpected",
    ExitCode.USAGE: "usage",
    ExitCode.SUBMISSION_FAILED: "submission_failed",
    ExitCode.PLATFORM: "platform",
    ExitCode.REFUSED: "refused",
    ExitCode.UNREACHABLE: "unreachable",
    ExitCode.INTERRUPTED: "interrupted",
}


class CliError(Exception):
    """An end of the command that its user should read: what went wrong and what to do next."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.USAGE, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.details = details

    def document(self) -> dict[str, object]:
        """What `--json` prints for this error."""
        return {"error": {"kind": KINDS[self.exit_code], "message": self.message, **self.details}}
