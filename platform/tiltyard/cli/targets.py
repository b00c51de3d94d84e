"""What a user names on the command line: a folder, an archive, a local image or a server's address."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.output import Output
from tiltyard.cli.packing import PackedArchive, names_image, pack_directory, read_manifest
from tiltyard.cli.scratch import scratch_folder
from tiltyard_sandbox.manifest import FILE_NAME

if TYPE_CHECKING:
    import docker

ARCHIVE_SUFFIXES: Final = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Upload:
    """A file to send, and the name to send it under."""

    path: Path
    filename: str
    sha256: str = ""  # of a file that was made for this call: made again, it has this in common with itself


@contextmanager
def prepared_upload(target: str, output: Output) -> Iterator[Upload]:
    """The archive for a folder, an archive or a local image, or the manifest that names an image in a registry.

    What had to be made is removed afterwards, by the next call where this one is killed.

    Raises CliError when `target` is none of these.
    """
    path = Path(target)
    with scratch_folder() as scratch:
        if path.is_dir() and names_image(path):
            output.note(f"{target} names an image: only its {FILE_NAME} is sent")
            yield Upload(path / FILE_NAME, FILE_NAME)
        elif path.is_dir():
            read_manifest(path)
            packed = pack_directory(path, scratch / "submission.tar.gz")
            output.note(describe_packed(target, packed))
            yield Upload(packed.path, f"{path.resolve().name or 'submission'}.tar.gz", packed.sha256)
        elif path.is_file():
            yield Upload(path, path.name)
        else:
            refuse_missing_path(target)
            saved = scratch / "image.tar"
            sha256 = save_image(target, saved, output)
            yield Upload(saved, f"{target.replace('/', '-').replace(':', '-')}.tar", sha256)


def describe_packed(target: str, packed: PackedArchive) -> str:
    """One line on what went into the archive."""
    return f"Packed {target}: {len(packed.files)} entries, {packed.size_bytes:,} bytes, sha256 {packed.sha256[:16]}…"


def refuse_missing_path(target: str) -> None:
    """Raise CliError when `target` was surely meant as a path: it is none, and no image is named like it."""
    if target.startswith((".", "/", "~")) or target.endswith((*ARCHIVE_SUFFIXES, "/")):
        raise CliError(f"{target} does not exist. Give a folder, an archive, or the name of a local Docker image.")


def connect_engine() -> "docker.DockerClient":
    """A client for the local Docker engine; raises CliError when there is none or the SDK is not installed."""
    try:
        from tiltyard_sandbox.engine import connect  # noqa: PLC0415  a third of a second, needed by two commands
        from tiltyard_sandbox.verdicts import InfraFault  # noqa: PLC0415
    except ModuleNotFoundError:
        raise CliError("The Docker SDK is not installed. Install it: pip install 'tiltyard[sandbox]'.") from None
    try:
        return connect()
    except InfraFault as fault:
        raise CliError(fault.message, ExitCode.PLATFORM) from None


def save_image(reference: str, destination: Path, output: Output) -> str:
    """Write a local image as `docker save` does; raises CliError when the engine has no such image.

    Returns the file's SHA-256 in hexadecimal digits.
    """
    client = connect_engine()
    written = hashlib.sha256()
    import docker.errors  # noqa: PLC0415  present: connect_engine imported it

    try:
        image = client.images.get(reference)
        output.note(f"Saving the image {reference} …")
        with destination.open("wb") as file:
            for chunk in image.save(named=True):
                file.write(chunk)
                written.update(chunk)
    except (docker.errors.ImageNotFound, docker.errors.APIError) as error:
        if getattr(error, "status_code", None) in {400, 404}:
            raise CliError(
                f"{reference} is neither a folder nor an archive here, nor an image that the Docker engine has. "
                "Check the name with `docker images`.",
                ExitCode.REFUSED,
            ) from None
        raise CliError(f"The Docker engine refused: {error}", ExitCode.PLATFORM) from None
    finally:
        client.close()
    return written.hexdigest()
