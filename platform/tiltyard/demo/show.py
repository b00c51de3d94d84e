"""The demo from the base images to the leaderboard, stage by stage, each with its time."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from django.core.management import call_command
from django.utils import timezone

from tiltyard.competitions.bundle import BundleError
from tiltyard.competitions.models import Competition
from tiltyard.demo import content, processes, watch
from tiltyard.demo.interrupts import Interrupted
from tiltyard.demo.place import REPOSITORY_DIR, DemoPlace
from tiltyard.leaderboards.board import leaderboard
from tiltyard.submissions.intake import UploadRefused
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState
from tiltyard.worker.publishing import publish
from tiltyard_sandbox.verdicts import InfraFault


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


def run(place: DemoPlace, *, once: bool) -> int:
    """Run the demo; returns its exit status. Raises DemoError."""
    started_at = float(os.environ.get("TILTYARD_DEMO_STARTED_AT") or time.time())
    try:
        with _stage("base images"):
            _make_base_images()
        with _stage("database, accounts, competition"):
            call_command("migrate", verbosity=0)
            organiser = content.ensure_users(place.passwords)
            competition = content.import_competition()
            content.settle()
        with contextlib.ExitStack() as stack:
            stack.callback(content.settle)
            with _stage("web server and workers"):
                children = _start(stack, place, competition)
            _say(f"You can watch it: {place.address}{competition.get_absolute_url()}")
            with _stage("baselines"):
                finished = _score_baselines(content.ensure_baselines(organiser, competition), children)
            _say_result(competition, time.time() - started_at)
            unscored = [run for run in finished if run.state != RunState.SCORED]
            if unscored:
                raise DemoError("\n".join(f"{run.submission.name}: {run.failure_message}" for run in unscored))
            if not once:
                _serve(place, children)
    except (BundleError, UploadRefused, processes.ProcessError, InfraFault) as error:
        raise DemoError(str(error)) from error
    return 0


@contextlib.contextmanager
def _stage(title: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    _say(f"▸ {title}")
    started = time.monotonic()
    yield
    _say(f"  {title}: {time.monotonic() - started:.1f} s")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  the demo talks to the terminal


def _make_base_images() -> None:
    made = subprocess.run([sys.executable, REPOSITORY_DIR / "scripts" / "base_images.py"], check=False)
    if made.returncode != 0:
        raise DemoError("The base images could not be made; the reason stands above.")


def _start(stack: contextlib.ExitStack, place: DemoPlace, competition: Competition) -> list[processes.Running]:
    queue = competition.tracks.order_by("order").get(needs_gpu=False).queue
    commands = {
        "web": processes.web_command(place),
        "worker": processes.worker_command(queue),
        "maintenance": processes.maintenance_command(place.data_dir),
    }
    children = [stack.enter_context(processes.started(place, name, line)) for name, line in commands.items()]
    processes.wait_for_web(children[0], place.address)
    return children


def _score_baselines(runs: Sequence[Run], children: Sequence[processes.Running]) -> list[Run]:
    # Redis began empty: what an interrupted demo left in the queue exists in the database alone.
    for queued in Run.objects.claimable():
        publish(queued)

    def check() -> None:
        for child in children:
            child.check()

    began = time.monotonic()
    return watch.follow(runs, lambda line: _say(f"  {time.monotonic() - began:5.0f} s  {line}"), check)


def _say_result(competition: Competition, total_s: float) -> None:
    for track in competition.tracks.order_by("order"):
        board = leaderboard(competition, track, now=timezone.now())
        if board.entries:
            _say(f"\n{competition.title} · {track.title}\n\n{watch.board_table(board)}\n")
    _say(f"Ready in {total_s:.0f} s.")


def _serve(place: DemoPlace, children: Sequence[processes.Running]) -> None:
    accounts = "\n".join(f"    {name:<10} {password}" for name, password in place.passwords.items())
    _say(f"\nTiltyard is at {place.address}\n\n  Sign in as\n{accounts}\n\nCtrl-C stops everything.")
    try:
        while True:
            for child in children:
                child.check()
            time.sleep(1.0)  # nothing to wait for but a signal
    except Interrupted:
        _say("\nStopping.")
