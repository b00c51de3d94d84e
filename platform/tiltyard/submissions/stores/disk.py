"""Artefacts on the local disk, or on one that web server and workers share."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tiltyard.submissions.stores.errors import StoreError

_OWNER: Final = "owner"


class DiskStore:
    """Files in folders by the first two digits of their hash."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def send_ahead(self, path: Path, sha256: str) -> None:  # noqa: ARG002 - a store over a network needs it
        """Onto the disk: the row that names this file must not survive a power cut that the file does not."""
        _sync(path)

    def put(self, path: Path, sha256: str) -> None:
        """Move the file into place, under a name of its own first: it appears whole, wherever it lay, and stays.

        It is read-only before it is in place: an unfinished upload may still have another name of the same file.
        """
        place = self.path_of(sha256)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        staged = place.with_name(f".{uuid.uuid4()}.part")
        try:
            shutil.move(path, staged)
            staged.chmod(0o400)
            _sync(staged)  # a copy, where the move was from another disk
            staged.replace(place)
        finally:
            staged.unlink(missing_ok=True)  # still there, too, where `place` was the same file already
        _sync(place.parent)
        _sync(self._directory)

    def holds(self, sha256: str) -> bool:
        return self.path_of(sha256).is_file()

    @contextmanager
    def fetched(self, sha256: str) -> Iterator[Path]:
        """The file itself."""
        path = self.path_of(sha256)
        if not path.is_file():
            raise StoreError(f"The artefact {sha256} is not on this machine.")
        yield path

    def remove(self, sha256: str) -> None:
        with _told():
            self.path_of(sha256).unlink(missing_ok=True)

    def stored(self) -> Iterator[tuple[str, datetime]]:
        with _told():
            for path in self._directory.glob("[0-9a-f][0-9a-f]/*"):
                with suppress(FileNotFoundError):  # removed since it was listed
                    if len(path.name) == 64 and path.is_file():
                        yield path.name, datetime.fromtimestamp(path.stat().st_ctime, UTC)

    def sweep(self, before: datetime) -> int:
        removed = 0
        with _told():
            for path in self._directory.glob("[0-9a-f][0-9a-f]/.*.part"):
                with suppress(FileNotFoundError):  # it has just become a file
                    if path.stat().st_ctime < before.timestamp():
                        path.unlink()
                        removed += 1
        return removed

    def owner(self) -> str | None:
        with _told(), suppress(FileNotFoundError):
            return (self._directory / _OWNER).read_text(encoding="ascii", errors="replace").strip()
        return None

    def set_owner(self, owner: str) -> None:
        with _told():
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            staged = self._directory / f".{uuid.uuid4()}.part"
            staged.write_text(f"{owner}\n", encoding="ascii")
            staged.replace(self._directory / _OWNER)

    def answers(self) -> bool:
        try:
            os.scandir(self._directory).close()
        except OSError:
            return False
        return True

    def path_of(self, sha256: str) -> Path:
        """Where a file is, or would be."""
        return self._directory / sha256[:2] / sha256


@contextmanager
def _told() -> Iterator[None]:
    """The disk's errors, as ours."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"The disk of artefacts fails: {error}") from error


def _sync(path: Path) -> None:
    """Onto the disk: a file's bytes, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
