"""Copies of artefacts on this machine while somebody works with them, and those that a killed process has left."""

import fcntl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

_PREFIX: Final = "artefact-"
_NEW_S: Final = 60.0  # from the file to its lock is much less


@contextmanager
def scratch_file(directory: Path) -> Iterator[IO[bytes]]:
    """An empty file, removed at the end. Its lock ends with the process that has it, however that ends."""
    with tempfile.NamedTemporaryFile(dir=directory, prefix=_PREFIX) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def sweep_scratch(directory: Path) -> int:
    """Remove the files that no process has any more; how many."""
    removed = 0
    for path in directory.glob(f"{_PREFIX}*"):
        with suppress(OSError), path.open("rb") as file:  # gone, or locked: somebody works with it
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - path.stat().st_mtime > _NEW_S:
                path.unlink()
                removed += 1
    return removed
