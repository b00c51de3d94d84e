"""Take away what earlier evaluations of this account have left, had they been killed, and say whose the next one's is.

Each evaluation holds a lock on a file of its own, which the kernel gives up however the process ends. So what belongs
to a file that nobody holds is nobody's; and what belongs to no file here is another account's, and stays.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

import docker

from tiltyard.cli.config import cache_dir
from tiltyard.cli.output import Output
from tiltyard_sandbox.leftovers import find_leftovers, remove_first_steps, remove_leftovers
from tiltyard_sandbox.pair import sweep
from tiltyard_sandbox.verdicts import InfraFault

LABEL: Final = "tiltyard.local-run"  # of an evaluation's containers, with its owner's name as the value
_SITE: Final = "local"
_FORGOTTEN_S: Final = 24 * 3600  # by then, an engine that was cut off has finished whatever it was at


@contextmanager
def evaluation(client: docker.DockerClient, output: Output) -> Iterator[str]:
    """The owner (see `tiltyard_sandbox.owners`) for one evaluation, after a sweep; should that fail, it is noted."""
    directory = cache_dir() / "evaluations"
    directory.mkdir(exist_ok=True)
    own = directory / uuid4().hex
    with own.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            _sweep(client, directory)
        except InfraFault as fault:
            output.note(f"What an earlier evaluation left could not be removed: {fault.message}")
        yield _owner(own)


def _sweep(client: docker.DockerClient, directory: Path) -> None:
    found = find_leftovers(client, _SITE)
    dead = [path for path in directory.iterdir() if not _is_held(path)]
    owners = {_owner(path) for path in dead}
    for owner in owners:
        sweep(client, {LABEL: owner})  # first, as these containers run those images
    remove_leftovers(client, [one for one in found if one.owners <= owners])
    remove_first_steps(client)
    for path in dead:
        if path.stat().st_mtime < time.time() - _FORGOTTEN_S:
            path.unlink(missing_ok=True)


def _owner(path: Path) -> str:
    return f"{_SITE}.{path.name}"


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return not _take(file)
    except FileNotFoundError:  # another evaluation was quicker
        return True


def _take(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
