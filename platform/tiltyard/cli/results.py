"""What a local evaluation gave: per suite the evaluator's own result.json and samples.jsonl, and the verdict."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard_eval.files import write_atomically
from tiltyard_eval.report import render_report
from tiltyard_eval.results import MAX_RESULT_BYTES, Result, ResultError, load_result
from tiltyard_eval.sample_rows import SampleError, parse_line
from tiltyard_sandbox.results import read_results
from tiltyard_sandbox.verdicts import InfraFault

SAMPLES_BYTES_MAX: Final = 256 << 20


@dataclass(frozen=True)
class SuiteReport:
    """One suite's results: result.json, checked and as it was written, and the folder that it lies in."""

    title: str
    directory: Path
    checked: Result
    result: dict[str, Any]

    @classmethod
    def read(cls, title: str, directory: Path) -> Self | None:
        """What the evaluator left in `directory`; None when it left no result. Raises CliError when it is damaged."""
        try:
            content = read_results(directory, ["result.json"], MAX_RESULT_BYTES).get("result.json")
            if content is None:
                return None
            return cls(title, directory, load_result(content), json.loads(content))
        except (ResultError, InfraFault, OSError) as error:
            raise CliError(f"The evaluator's result cannot be read: {error}", ExitCode.PLATFORM) from None

    @property
    def page(self) -> Path:
        """The report's place: beside the evaluator's folder, which may belong to the container's user."""
        return self.directory.with_name(f"{self.name}.html")

    def write_page(self) -> None:
        """Write the evaluator's report as one HTML file that loads nothing; raises CliError when it cannot."""
        try:
            content = read_results(self.directory, ["samples.jsonl"], SAMPLES_BYTES_MAX).get("samples.jsonl", b"")
            rows = [parse_line(line, f"line {number}") for number, line in enumerate(content.splitlines(), 1)]
        except (SampleError, InfraFault, OSError) as error:
            raise CliError(f"The evaluator's samples cannot be read: {error}", ExitCode.PLATFORM) from None
        write_atomically(self.page, [render_report(self.checked, rows)])

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
            "suites": [
                {"name": suite.name, "report": str(suite.page)}
                | {key: suite.result.get(key) for key in ("score", "repro_hash", "tasks")}
                for suite in self.suites
            ],
        }
