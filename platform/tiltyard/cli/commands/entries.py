"""`tiltyard submit`, `status`, `logs` and `cancel`: send an entry and follow its run."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltyard.cli.client import ApiClient, Document
from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.follow import follow, verdict_exit_code
from tiltyard.cli.options import JsonOption, ServerOption, Session, TrackOption
from tiltyard.cli.output import Output
from tiltyard.cli.tables import run_summary, submissions_table
from tiltyard.cli.targets import Upload, prepared_upload

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `tiltyard submit` printed it.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Follow the run to its end; the exit code is its verdict.")]


def submit(
    target: Annotated[str, typer.Argument(metavar="DIR|ARCHIVE|IMAGE", help="What to submit.")],
    *,
    competition: Annotated[str, typer.Option("--competition", metavar="SLUG", help="The competition's slug.")],
    track: TrackOption = None,
    wait: WaitOption = False,
    server: ServerOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Upload a submission.

    With --wait, follow its run until it has a verdict.
    """
    session = Session.open(server, json_mode=json_mode)
    with ExitStack() as stack:
        client = stack.enter_context(session.client())
        client.me()  # what can be refused is refused before packing and uploading, not after
        description = client.competition(competition)
        upload = stack.enter_context(prepared_upload(target, session.output))
        _check_size(upload.path, description)
        sent = _send(client, session.output, upload, competition, track)
        for label, name in (("Submission", "submission_id"), ("Run", "run_id"), ("Page", "url")):
            session.output.say(f"{label:<12}{sent[name]}")
        if not wait:
            session.output.say(f"Follow it: tiltyard status {sent['run_id']} --wait")
            session.output.document(sent)
            return ExitCode.OK
        run = follow(client, session.output, str(sent["run_id"]))
    session.output.document(sent | {"run": run})
    session.output.say(run_summary(run))
    return verdict_exit_code(run)


def status(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's id. Default: list all.")] = None,
    wait: WaitOption = False,
    server: ServerOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Show one run, or all your submissions."""
    session = Session.open(server, json_mode=json_mode)
    if wait and run_id is None:
        raise CliError("--wait needs a run: tiltyard status RUN --wait. Without a run, `tiltyard status` lists yours.")
    with session.client() as client:
        if run_id is None:
            submissions = client.submissions()
            session.output.document({"submissions": submissions})
            if submissions:
                session.output.show(submissions_table(submissions))
            else:
                session.output.say("You have submitted nothing yet. Next: tiltyard submit DIR --competition SLUG")
            return ExitCode.OK
        run = follow(client, session.output, run_id) if wait else client.run(run_id)
    session.output.document(run)
    session.output.say(run_summary(run))
    return verdict_exit_code(run) if wait else ExitCode.OK


def logs(
    run_id: RunArgument,
    server_log: Annotated[
        bool, typer.Option("--server-log", help="The log of your server in place of the build's.")
    ] = False,
    server: ServerOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Show a run's build log or server log."""
    session = Session.open(server, json_mode=json_mode)
    with session.client() as client:
        found = client.logs(run_id)
    session.output.document(found)
    text = str(found.get("server_log" if server_log else "build_log") or "").rstrip("\n")
    if text:
        session.output.say(text)
    else:
        session.output.note(f"The {'server' if server_log else 'build'} log of {run_id} is empty so far.")


def cancel(run_id: RunArgument, server: ServerOption = None, json_mode: JsonOption = False) -> None:
    """Stop a run.

    Its containers are gone within seconds.
    """
    session = Session.open(server, json_mode=json_mode)
    with session.client() as client:
        answer = client.cancel(run_id)
    session.output.document(answer)
    session.output.say(f"Asked {run_id} to stop. See it end: tiltyard status {run_id} --wait")


def _send(client: ApiClient, output: Output, upload: Upload, competition: str, track: str | None) -> Document:
    size_bytes = upload.path.stat().st_size
    with ExitStack() as stack:
        on_offset: Callable[[int], None] = _ignore
        if not output.error_console.is_terminal:
            output.note(f"Uploading {upload.filename}, {size_bytes:,} bytes …")
        else:
            from rich.progress import (  # noqa: PLC0415  rich is imported only when something is shown
                BarColumn,
                DownloadColumn,
                Progress,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            columns = ("Uploading", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            bar = stack.enter_context(Progress(*columns, console=output.error_console))
            task = bar.add_task("upload", total=size_bytes)
            on_offset = partial(_show, bar, task)
        path, filename, sha256 = upload.path, upload.filename, upload.sha256
        return client.submit(competition, path, filename, track, sha256=sha256, on_offset=on_offset, say=output.note)


def _show(bar: "Progress", task: "TaskID", offset_bytes: int) -> None:
    bar.update(task, completed=offset_bytes)


def _ignore(_offset_bytes: int) -> None:
    """Nobody watches."""


def _check_size(path: Path, competition: Document) -> None:
    allowed_bytes = competition.get("upload_bytes_max")
    size_bytes = path.stat().st_size
    if isinstance(allowed_bytes, int) and size_bytes > allowed_bytes:
        raise CliError(
            f"The submission has {size_bytes:,} bytes, more than the {allowed_bytes:,} that the competition allows. "
            "Leave out what the server does not need: name it in .dockerignore."
        )
