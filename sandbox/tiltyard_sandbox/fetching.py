"""Workers of one machine take turns with an image, and what a killed one has fetched is found and taken away.

An engine names a fetched image after its registry, and whoever fetched it takes that name away again, unless somebody
had the image before. Two at once could not tell: one would take the other's for somebody's, and let it lie for ever,
or lose it between two steps. So there is a lock for each digest, which ends with the process that holds it; and before
a name appears, it is written down in the folder of the attempt.
"""

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import docker

from tiltyard_sandbox.engine import ENGINE_ERRORS, is_gone
from tiltyard_sandbox.references import ImageReference
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, SubmissionFault

POLL_S: Final = 0.25
_NOTE: Final = "fetched-image"
_NOTE_BYTES_MAX: Final = 1000


@contextmanager
def turn_with(
    reference: ImageReference, scratch: Path | None, *, cancel: threading.Event, wait_s: float
) -> Iterator[None]:
    """Wait until no other worker of this machine is at an image of this digest; raises Cancelled, or InfraFault.

    The locks lie beside `scratch`, the folder of the attempt, or where temporary files do.
    """
    folder = scratch.parent if scratch else Path(tempfile.gettempdir())
    # Few files, whatever the digests: those that begin alike wait for each other, too.
    path = folder / f".tiltyard-fetch-{os.geteuid()}-{reference.digest.partition(':')[2][:2]}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        gives_up_s = time.monotonic() + wait_s
        while not _is_locked(descriptor):
            if cancel.wait(POLL_S):
                raise Cancelled
            if time.monotonic() > gives_up_s:
                raise InfraFault(f"Another worker has been at {reference} for more than {wait_s:g} s.")
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def note_fetched(reference: ImageReference, scratch: Path | None) -> None:
    """Write down that this attempt is about to give the engine an image of this name."""
    if scratch is not None:
        (scratch / _NOTE).write_text(str(reference))


def forget_fetched(client: docker.DockerClient, scratch: Path) -> bool:
    """Take away what a dead attempt's folder names, and say whether it was still there; raises InfraFault.

    Only a name with a digest is taken for one, and an image that has other names keeps those.
    """
    try:
        with (scratch / _NOTE).open("rb") as file:
            reference = ImageReference.parse(file.read(_NOTE_BYTES_MAX).decode("ascii", "replace"))
    except (FileNotFoundError, SubmissionFault):
        return False
    return remove_name(client, str(reference))


def remove_name(client: docker.DockerClient, name: str) -> bool:
    """Take away a name, and with it the image where nobody else has it; False where it is gone or in use."""
    try:
        client.images.remove(name, force=False, noprune=False)
    except docker.errors.APIError as error:
        if error.status_code != 409 and not is_gone(error):  # in use, or gone
            raise InfraFault(f"The fetched image could not be removed: {error.explanation}") from error
        return False
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error
    return True
