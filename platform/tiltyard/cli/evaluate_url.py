"""Evaluate a server that somebody has started: the evaluator as a process here, without image or sandbox."""

import subprocess
import sys
from pathlib import Path

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.output import Output
from tiltyard.cli.plan import Plan, PlannedSuite
from tiltyard.cli.results import Evaluation, SuiteReport


def evaluate_url(output: Output, url: str, plan: Plan, adapter: str, results_dir: Path) -> Evaluation:
    """Ask the server at `url` every suite of the plan, one after another."""
    evaluation = Evaluation(url)
    for suite in plan.suites:
        output.note(f"{suite.title}:")
        report = _run(url, plan, suite, adapter, results_dir / suite.name)
        evaluation.suites.append(report)
        if not report.is_scored:
            evaluation.fail(report.result["failure"]["reason"], report.result["failure"]["message"])
            break
    return evaluation


def _run(url: str, plan: Plan, suite: PlannedSuite, adapter: str, suite_results: Path) -> SuiteReport:
    command = [sys.executable, "-m", "tiltyard_eval", "run", "--url", url, "--adapter", adapter]
    command += ["--suite", str(suite.directory), "--out", str(suite_results), "--seed", str(plan.seed)]
    command += ["--deadline", str(plan.limits.evaluate_s), "--start-timeout", str(plan.limits.start_s)]
    # Its progress goes to standard error; its summary is dropped, because this command prints its own.
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    report = SuiteReport.read(suite.title, suite_results) if suite_results.is_dir() else None
    if report is None:
        raise CliError(
            f"The evaluator ended with status {done.returncode} and left no result; its message stands above. "
            "If it is not installed: pip install 'tiltyard[eval]'.",
            ExitCode.PLATFORM,
        )
    return report
