"""Pack a submission's folder into an archive: the same files always give the same bytes.

What `tiltyard evaluate` tries and what `tiltyard submit` sends come from this one function, so what is evaluated is
what is submitted.
"""

import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from tiltyard.cli.errors import CliError
from tiltyard.cli.ignore import DockerIgnore, is_never_packed
from tiltyard_sandbox.manifest import FILE_NAME, MAX_BYTES, SubmissionManifest
from tiltyard_sandbox.references import named_image
from tiltyard_sandbox.verdicts import SubmissionFault

_COMPRESSION_LEVEL: Final = 1  # weights hardly shrink at any level


@dataclass(frozen=True)
class PackedArchive:
    """An archive on disk and what it holds."""

    path: Path
    sha256: str
    size_bytes: int
    files: tuple[str, ...]


def names_image(directory: Path) -> bool:
    """Whether a folder's `tiltyard.yaml` stands for an image in a registry; raises CliError when it is wrong."""
    path = directory / FILE_NAME
    try:
        return not (directory / "Dockerfile").exists() and path.is_file() and named_image(path) is not None
    except SubmissionFault as fault:
        raise CliError(fault.message) from None


def read_manifest(directory: Path) -> SubmissionManifest:
    """The checked `tiltyard.yaml` of a submission's folder; raises CliError when the folder is not a submission."""
    for name in ("Dockerfile", FILE_NAME):
        if not (directory / name).is_file():
            raise CliError(
                f"{directory} has no {name}. `tiltyard init NEW_FOLDER` writes a complete submission to start from."
            )
    try:
        with (directory / FILE_NAME).open("rb") as file:
            return SubmissionManifest.from_yaml(file.read(MAX_BYTES + 1))
    except SubmissionFault as fault:
        raise CliError(fault.message) from None


def pack_directory(directory: Path, destination: Path) -> PackedArchive:
    """Write `directory` as a `.tar.gz` to `destination`, a new file.

    Entries are sorted; times, owners and all of the mode but the executable bit are dropped; `.dockerignore` is
    honoured. Raises CliError on anything that cannot travel: a link that leaves the folder, a socket, an unreadable
    file.
    """
    names = []
    try:
        # Opened apart from gzip so that no file name goes into its header.
        with (
            destination.open("xb") as raw,
            gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name, path in _entries(directory):
                _add(archive, str(name), path)
                names.append(str(name))
    except OSError as error:
        raise CliError(f"{error.filename or directory} could not be packed: {error.strerror or error}.") from None
    return PackedArchive(destination, sha256_of(destination), destination.stat().st_size, tuple(names))


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entries(directory: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    """What goes in, sorted: (name in the archive, file or folder on disk)."""
    root = directory.resolve(strict=True)
    rules = DockerIgnore.read(root)
    found = []
    for folder, folder_names, file_names in os.walk(root, onerror=_raise):
        here = Path(folder)
        folder_names[:] = [name for name in folder_names if not is_never_packed(here / name)]
        for path in (here / name for name in (*folder_names, *file_names)):
            name = PurePosixPath(path.relative_to(root).as_posix())
            if not is_never_packed(path) and not rules.excludes(name):
                found.append((name, _followed(path, root)))
    yield from sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _followed(path: Path, root: Path) -> Path:
    """The file that `path` stands for. A link inside the folder is packed as the file that it points at."""
    if not path.is_symlink():
        return path
    target = path.resolve()
    if not target.is_relative_to(root) or not target.is_file():
        raise CliError(
            f"{path.relative_to(root)} is a link to {target}, which is not a file in the folder. "
            "Copy what it points at into the folder, or name the link in .dockerignore."
        )
    return target


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    status = path.stat()
    entry = tarfile.TarInfo(name)  # time 0 and owner 0 by default
    if stat.S_ISDIR(status.st_mode):
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)
    elif stat.S_ISREG(status.st_mode):
        entry.mode = 0o755 if status.st_mode & 0o111 else 0o644
        with path.open("rb") as file:
            entry.size = os.fstat(file.fileno()).st_size
            archive.addfile(entry, file)
    else:
        raise CliError(f"{name} is neither a file nor a folder. Remove it, or name it in .dockerignore.")
