"""Read files that a container wrote, without following anything it may have planted there."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from tiltyard_sandbox.verdicts import InfraFault


def read_results(directory: Path, names: Iterable[str], max_bytes: int) -> dict[str, bytes]:
    """The contents of those of `names` that exist in `directory`, each a regular file of at most `max_bytes`.

    Raises InfraFault on a symbolic link, FIFO, device, directory, hard link or oversized file: the evaluator writes
    none of these, so someone else did.
    """
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = {}
        for name in names:
            content = _read_one(directory_fd, name, max_bytes)
            if content is not None:
                found[name] = content
        return found
    finally:
        os.close(directory_fd)


def _read_one(directory_fd: int, name: str, max_bytes: int) -> bytes | None:
    if "/" in name or name in {"", ".", ".."}:
        raise ValueError(f"{name!r} is not a plain file name")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file_fd = os.open(name, flags, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InfraFault(f"The result file {name} is not a readable regular file: {error.strerror}.") from None
    try:
        status = os.fstat(file_fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise InfraFault(f"The result file {name} is not a regular file with one name.")
        if status.st_size > max_bytes:
            raise InfraFault(f"The result file {name} is larger than {max_bytes} bytes.")
        with os.fdopen(file_fd, "rb", closefd=False) as file:
            return file.read(max_bytes)
    finally:
        os.close(file_fd)
