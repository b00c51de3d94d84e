"""Put the commands together; turn every way to end into one text, one exit code and, if asked, one JSON document."""

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from tiltyard.cli.commands import account, boards, entries, evaluate, project, reports, suites, verify, worker
from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.output import printable, write_json

app = typer.Typer(
    name="tiltyard",
    help="Take part in Tiltyard competitions: start a submission, evaluate it here, submit it, follow it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich costs a third of a second, and --help should be instant
)
app.command("init")(project.init)
app.command("data")(project.data)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(reports.report)
app.command("compare")(reports.compare)
app.add_typer(suites.app, name="suite")
app.add_typer(worker.app, name="worker")
app.command("login")(account.login)
app.command("logout")(account.logout)
app.command("submit")(entries.submit)
app.command("status")(entries.status)
app.command("logs")(entries.logs)
app.command("cancel")(entries.cancel)
app.command("manifest")(verify.manifest)
app.command("verify")(verify.verify)
app.command("competitions")(boards.competitions)
app.command("leaderboard")(boards.leaderboard)


def run(arguments: Sequence[str]) -> int:
    """Run the command with these arguments; returns the exit code."""
    try:
        result = app(list(arguments), prog_name="tiltyard", standalone_mode=False)
    except CliError as error:
        return _fail(error, arguments)
    except typer.TyperException as error:
        message = error.format_message()
        return _fail(CliError(f"{message} Run `tiltyard {_command(arguments)}--help` to see the usage."), arguments)
    except (KeyboardInterrupt, typer.Abort):
        result = int(ExitCode.INTERRUPTED)
    except Exception as error:  # the outermost boundary: a traceback is no message for a participant
        if os.environ.get("TILTYARD_TRACEBACK"):
            traceback.print_exc()
        return _fail(
            CliError(
                f"Unexpected error, {type(error).__name__}: {error}. Set TILTYARD_TRACEBACK=1 to see where, "
                "and please report it.",
                ExitCode.UNEXPECTED,
            ),
            arguments,
        )
    if result == ExitCode.INTERRUPTED:
        return _fail(CliError("Interrupted.", ExitCode.INTERRUPTED), arguments)
    return result if isinstance(result, int) else ExitCode.OK


def _command(arguments: Sequence[str]) -> str:
    """The command that was meant, one of a group behind the group's name, for pointing to its help."""
    found, names = typer.main.get_command(app), ""
    for name in arguments:
        commands = getattr(found, "commands", {})
        if name not in commands:
            break
        found, names = commands[name], f"{names}{name} "
    return names


def _fail(error: CliError, arguments: Sequence[str]) -> int:
    if "--json" in arguments:
        write_json(error.document())
    else:
        sys.stderr.write(f"Error: {printable(error.message)}\n")
    return int(error.exit_code)
