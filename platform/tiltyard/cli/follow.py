"""Follow a run on the server until its verdict."""

import time
from collections.abc import Mapping
from typing import Any, Final

from tiltyard.cli.client import ApiClient, Document
from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.output import Output

POLL_S: Final = 1.0
OUTAGE_S: Final = 60.0  # a restart of the server is no reason to lose sight of a run
FINAL_STATES: Final = frozenset({"scored", "failed", "cancelled"})


def follow(client: ApiClient, output: Output, run_id: str) -> Document:
    """Print the run's events to standard error until it is final; returns the run.

    A server that is away is asked again for OUTAGE_S. Raises CliError that names the run when it stays away or when
    the user interrupts: the run itself goes on.
    """
    seen = 0
    last_progress = ""
    last_answer_s = time.monotonic()
    try:
        while True:
            try:
                run = client.run(run_id)
                for event in client.events(run_id, seen):
                    seen = max(seen, int(event.get("id", seen)))
                    output.note(f"{str(event.get('at', ''))[11:19]}  {event.get('state')}: {event.get('message', '')}")
                last_answer_s = time.monotonic()
            except CliError as error:
                is_outage = error.exit_code in {ExitCode.UNREACHABLE, ExitCode.PLATFORM}
                if not is_outage or time.monotonic() - last_answer_s > OUTAGE_S:
                    raise _lost(error, run_id) from None
            else:
                if run["state"] in FINAL_STATES:
                    return run
                last_progress = _show_progress(output, run, last_progress)
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        raise CliError(
            f"Interrupted; the run goes on. Follow it: tiltyard status {run_id} --wait. "
            f"Stop it: tiltyard cancel {run_id}.",
            ExitCode.INTERRUPTED,
            run_id=run_id,
        ) from None


def verdict_exit_code(run: Mapping[str, Any]) -> ExitCode:
    """0 for a score, 4 when the platform failed, 3 for every other end."""
    if run["state"] == "scored":
        return ExitCode.OK
    return ExitCode.PLATFORM if run.get("failure_reason") == "infra_error" else ExitCode.SUBMISSION_FAILED


def _show_progress(output: Output, run: Document, last: str) -> str:
    """One line for each tenth of a suite, so that a log file stays readable."""
    done, total = run.get("items_done") or 0, run.get("items_total") or 0
    tenth = f"{run.get('current_suite')} {10 * done // total}" if total else ""
    if tenth and tenth != last:
        output.note(f"{run.get('current_suite')}: {done} of {total} questions")
    return tenth


def _lost(error: CliError, run_id: str) -> CliError:
    return CliError(
        f"{error.message} The run goes on: tiltyard status {run_id} --wait.",
        error.exit_code,
        **error.details | {"run_id": run_id},
    )
