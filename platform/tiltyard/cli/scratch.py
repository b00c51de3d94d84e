"""A folder in the cache for what one call packs or saves: gone when the call ends, however that was.

Each call holds a lock on its folder, which the kernel gives up with the process. A call that was killed removes
nothing; the next one finds its folder unlocked.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tiltyard.cli.config import cache_dir

_PREFIX: Final = "upload-"
_YOUNG_S: Final = 60  # a folder is made first and locked then


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder of this call's own, once those that killed calls left are gone."""
    _sweep()
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=_PREFIX) as name:
        descriptor = _opened(Path(name))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(descriptor)


def _sweep() -> None:
    for folder in cache_dir().glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another call was quicker, or it is no folder of ours
            _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    descriptor = _opened(folder)
    try:
        if os.fstat(descriptor).st_mtime > time.time() - _YOUNG_S:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError where it is held
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
