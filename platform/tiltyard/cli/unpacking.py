"""Unpack a suite's archive that a server sent. The archive is hostile until its content matches the promised hash."""

import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

from tiltyard.cli.errors import CliError, ExitCode

ARCHIVE_BYTES_MAX: Final = 256 << 20
UNPACKED_BYTES_MAX: Final = 1 << 30
ENTRIES_MAX: Final = 10_000


def unpack_suite(archive: Path, destination: Path) -> None:
    """Write the files of the `.tar.gz` below `destination`, a new folder.

    Raises CliError on a link, a device, a name that leaves the folder, two entries of one name, too many entries or
    too many bytes. What had been written by then stays in `destination`, for the caller to remove.
    """
    destination.mkdir(parents=True)
    seen: set[PurePosixPath] = set()
    total_bytes = 0
    try:
        with tarfile.open(archive, "r:gz") as packed:
            for entry in packed:
                name = _checked_name(entry.name)
                total_bytes += max(0, entry.size)
                if name in seen or len(seen) >= ENTRIES_MAX or total_bytes > UNPACKED_BYTES_MAX:
                    raise _refused(f"has too many entries, too many bytes, or {entry.name[:100]!r} twice")
                seen.add(name)
                _write(packed, entry, destination / name)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise _refused(f"cannot be unpacked ({type(error).__name__}: {error})") from None


def suite_root(directory: Path) -> Path:
    """The folder that holds `suite.yaml`: `directory` itself or the single folder in it."""
    candidates = [directory, *(path for path in directory.iterdir() if path.is_dir())]
    roots = [path for path in candidates if (path / "suite.yaml").is_file()]
    if not roots:
        raise _refused("has no suite.yaml")
    return roots[0]


def _checked_name(text: str) -> PurePosixPath:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        raise _refused(f"has an entry outside its folder: {text[:100]!r}")
    return path


def _write(packed: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    if entry.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    source = packed.extractfile(entry) if entry.isreg() else None
    if source is None:
        raise _refused(f"has an entry that is neither a file nor a folder: {entry.name[:100]!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # "x" never follows anything that an earlier entry could have planted.
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file)


def _refused(what: str) -> CliError:
    return CliError(
        f"The suite's archive that the server sent {what}. Try again; if it stays, tell the organisers.",
        ExitCode.PLATFORM,
    )
