"""`tiltyard evaluate`: the server's evaluation, here."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.options import JsonOption, ServerOption, Session, TrackOption
from tiltyard.cli.plan import Plan, plan_from_bundle, plan_from_server, plan_from_suite
from tiltyard.cli.results import Evaluation
from tiltyard.cli.tables import evaluation_table
from tiltyard_sandbox.manifest import ADAPTERS


def evaluate(
    target: Annotated[str, typer.Argument(metavar="DIR|ARCHIVE|IMAGE|URL", help="What to evaluate.")],
    *,
    competition: Annotated[
        str | None, typer.Option("--competition", metavar="SLUG", help="Take suites and limits from this competition.")
    ] = None,
    track: TrackOption = None,
    competition_dir: Annotated[
        Path | None,
        typer.Option("--competition-dir", metavar="DIR", help="Take them from a bundle on disk: needs no server."),
    ] = None,
    suite: Annotated[
        Path | None,
        typer.Option("--suite", metavar="DIR", help="Ask the questions of this suite, under default limits."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where results go. Default: tiltyard-results/TIME.")
    ] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", metavar="UUID", help="Give the submission this GPU.")] = None,
    adapter: Annotated[
        str, typer.Option("--adapter", help=f"For a URL: the wire protocol, {' or '.join(ADAPTERS)}.")
    ] = "openai",
    server: ServerOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Evaluate a submission here, as the server would.

    Asks the questions of the open suite, prints the scores, and writes a report.
    """
    session = Session.open(server, json_mode=json_mode)
    if sum(source is not None for source in (competition, competition_dir, suite)) != 1:
        raise CliError("Say what to ask: exactly one of --competition SLUG, --competition-dir DIR or --suite DIR.")
    if adapter not in ADAPTERS:
        raise CliError(f"--adapter is {' or '.join(ADAPTERS)}, not {adapter!r}.")
    plan = _with_gpu(_plan(session, competition, track, competition_dir, suite), gpu)
    results_dir = _new_directory(out)
    evaluation = _run(session, target, plan, adapter, results_dir)
    for report in evaluation.suites:
        report.write_page()
    (results_dir / "summary.json").write_text(json.dumps(evaluation.document(results_dir), indent=2), encoding="utf-8")
    session.output.document(evaluation.document(results_dir))
    if evaluation.suites:
        session.output.show(evaluation_table(evaluation))
    if evaluation.failure_reason:
        session.output.say(f"Verdict: {evaluation.failure_reason}. {evaluation.failure_message}")
    for report in evaluation.suites:
        session.output.say(f"Report: {report.page}")
    session.output.say(f"Logs and results: {results_dir}")
    return evaluation.exit_code


def _plan(
    session: Session, competition: str | None, track: str | None, competition_dir: Path | None, suite: Path | None
) -> Plan:
    if competition is not None:
        with session.client() as client:
            return plan_from_server(client, competition, track)
    if competition_dir is not None:
        return plan_from_bundle(competition_dir, track)
    if suite is None:
        raise AssertionError("one of the three sources is set")
    return plan_from_suite(suite)


def _with_gpu(plan: Plan, gpu: str | None) -> Plan:
    try:
        return replace(plan, limits=replace(plan.limits, gpu_uuid=gpu))
    except ValueError as error:
        raise CliError(f"--gpu: {error} `nvidia-smi -L` lists them.") from None


def _new_directory(out: Path | None) -> Path:
    directory = out or Path("tiltyard-results") / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CliError(f"{directory} exists and is not an empty folder. Name a new one with --out.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"{directory} cannot be made: {error.strerror}. Name another with --out.") from None
    return directory.resolve()


def _run(session: Session, target: str, plan: Plan, adapter: str, results_dir: Path) -> Evaluation:
    if target.startswith(("http://", "https://")):
        from tiltyard.cli.evaluate_url import evaluate_url  # noqa: PLC0415

        return evaluate_url(session.output, target, plan, adapter, results_dir)
    try:
        from tiltyard.cli.evaluate_image import evaluate_target  # noqa: PLC0415  imports the Docker SDK
    except ModuleNotFoundError as error:
        raise CliError(
            f"{error.name} is not installed. Install what evaluating needs: pip install 'tiltyard[eval,sandbox]'.",
            ExitCode.USAGE,
        ) from None
    return evaluate_target(session.output, target, plan, results_dir)
