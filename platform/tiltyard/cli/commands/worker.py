"""`tiltyard worker`: for those who run workers. Needs the Docker SDK, but neither Django nor a site."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.options import JsonOption
from tiltyard.cli.output import Output
from tiltyard.cli.plan import DEFAULT_EVALUATOR_IMAGE
from tiltyard.cli.tables import table

if TYPE_CHECKING:
    from tiltyard_sandbox.selfcheck import Report

app = typer.Typer(help="For those who run workers: check a machine.", no_args_is_help=True)


@app.callback()
def worker() -> None:
    """For those who run workers: check a machine."""


@app.command("selfcheck")
def selfcheck(
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="IMAGE",
            help="An image with a python3 to attack from. Default: TILTYARD_EVALUATOR_IMAGE, or the evaluator's.",
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime", metavar="NAME", help="The engine's runtime, such as runsc. Default: TILTYARD_WORKER_RUNTIME."
        ),
    ] = None,
    json_mode: JsonOption = False,
) -> int:
    """Attack this machine's Docker engine from inside a sandbox, and say what held.

    Takes some ten seconds and leaves nothing. The exit code is 4 when anything failed: no worker takes untrusted work
    there.
    """
    from tiltyard_sandbox.engine import connect  # noqa: PLC0415  the Docker SDK is needed here alone
    from tiltyard_sandbox.selfcheck import run_selfcheck  # noqa: PLC0415
    from tiltyard_sandbox.verdicts import SandboxError  # noqa: PLC0415

    output = Output(json_mode=json_mode)
    output.note("Attacking the engine; this takes some ten seconds …")
    try:
        client = connect()
        try:
            report = run_selfcheck(
                client,
                image or os.environ.get("TILTYARD_EVALUATOR_IMAGE") or DEFAULT_EVALUATOR_IMAGE,
                runtime=runtime or os.environ.get("TILTYARD_WORKER_RUNTIME") or None,
            )
        finally:
            client.close()
    except SandboxError as fault:
        raise CliError(fault.message, ExitCode.PLATFORM) from fault
    except ValueError as error:
        raise CliError(str(error)) from error
    output.document(report.document())
    _show(output, report)
    return ExitCode.PLATFORM if report.failed else ExitCode.OK


def _show(output: Output, report: "Report") -> None:
    rows = [
        [check["result"], check["name"], check["tries"], check["defences"], check["saw"]]
        for check in report.document()["checks"]
    ]
    output.show(table(["Result", "Check", "It tried to", "What should hold", "What was seen"], rows))
    output.say(f"{report.engine}; runtime {report.runtime}; {report.wall_s:.1f} s")
    if report.failed:
        names = ", ".join(check.name for check in report.failed)
        output.say(f"FAILED: {names}. No worker takes untrusted work here. See docs/explanation/sandbox.md.")
    else:
        output.say(f"All {sum(not check.is_advice for check in report.checks)} checks hold.")
