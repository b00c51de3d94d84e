"""What a local evaluation gave: per suite the evaluator's own result.json and samples.jsonl, and the verdict."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard_eval.results import MAX_RESULT_BYTES, ResultError, load_result
from tiltyard_sandbox.results import read_results
from tiltyard_sandbox.verdicts import InfraFault

SAMPLES_BYTES_MAX: Final = 256 << 20


@dataclass(frozen=True)
class SuiteReport:
    """One suite's results: the checked result.json, and the folder that it lies in."""

    title: str
    directory: Path
    result: dict[str, Any]

    @classmethod
    def read(cls, title: str, directory: Path) -> Self | None:
        """What the evaluator left in `directory`; None when it left no result. Raises CliError when it is damaged."""
        try:
            content = read_results(directory, ["result.json"], MAX_RESULT_BYTES).get("result.json")
            if content is None:
                return None
            load_result(content)  # checks every field; what is shown then is what the evaluator wrote
            return cls(title, directory, json.loads(content))
        except (ResultError, InfraFault, OSError) as error:
            raise CliError(f"The evaluator's result cannot be read: {error}", ExitCode.PLATFORM) from None

    def samples(self) -> Iterator[dict[str, Any]]:
        """The items of samples.jsonl; none when the run ended before it was written."""
        content = read_results(self.directory, ["samples.jsonl"], SAMPLES_BYTES_MAX).get("samples.jsonl", b"")
        yield from (json.loads(line) for line in content.splitlines())

    @property
    def name(self) -> str:
        """The folder's name, which is the suite's."""
        return self.directory.name

    @property
    def is_scored(self) -> bool:
        """Whether the evaluator gave a score."""
        return self.result.get("status") == "scored"


@dataclass
class Evaluation:
    """A finished local evaluation; scored when there is no `failure_reason`."""

    target: str
    suites: list[SuiteReport] = field(default_factory=list)
    image_digest: str | None = None
    failure_reason: str = ""
    failure_message: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """0 scored, 4 when the fault is not the submission's, else 3."""
        if not self.failure_reason:
            return ExitCode.OK
        return ExitCode.PLATFORM if self.failure_reason == "infra_error" else ExitCode.SUBMISSION_FAILED

    def fail(self, reason: str, message: str) -> None:
        """Record why there is no score."""
        self.failure_reason, self.failure_message = reason, message

    def document(self, results_dir: Path) -> dict[str, object]:
        """What `--json` prints and summary.json holds."""
        failure = {"reason": self.failure_reason, "message": self.failure_message} if self.failure_reason else None
        return {
            "target": self.target,
            "status": "failed" if failure else "scored",
            "failure": failure,
            "image_digest": self.image_digest,
            "results_dir": str(results_dir),
            "report": str(results_dir / "report.html"),
            "suites": [
                {"name": suite.name} | {key: suite.result.get(key) for key in ("score", "repro_hash", "tasks")}
                for suite in self.suites
            ],
        }
