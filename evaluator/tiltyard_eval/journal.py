"""The journal: an append-only JSON Lines file from which a killed run continues.

One line per finished request, written with one `write`, so a kill leaves whole lines and at most one torn last line,
which is dropped. A batch is one line: it was answered as a whole, and is repeated as a whole or not at all, so that
continuing does not change which questions were answered together. Lines reach the disk in small groups.
"""

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

SCHEMA: Final = "tiltyard.journal/3"
_SYNC_LINES = 16
_SYNC_S = 1.0


class JournalError(Exception):
    """The journal cannot be used; the message says what to do."""


class Journal:
    """An open journal. `entries` holds what was in it when it was opened.

    Args:
        path: The file.
        fresh: True starts a journal and refuses an existing one; False continues one and refuses a missing one.

    Raises:
        JournalError: For those refusals, when another process holds the journal, or when it is damaged.
    """

    def __init__(self, path: Path, *, fresh: bool) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if fresh else 0), 0o644)
        except FileNotFoundError as error:
            raise JournalError(f"{path} does not exist; start a run with `run --out {path.parent}`") from error
        self._unsynced = 0
        self._synced_at = time.monotonic()
        try:
            self._lock(path)
            self.entries = self._read_entries(path)
            if fresh and self.entries:
                raise JournalError(
                    f"{path.parent} already holds a run; continue it with `resume --out` or choose another folder"
                )
            if not fresh and not self.entries:
                raise JournalError(f"{path} is empty; start a run with `run --out {path.parent}`")
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(f"another evaluation is writing to {path.parent}") from error

    def _read_entries(self, path: Path) -> list[dict[str, Any]]:
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.ftruncate(self._fd, len(whole))
        entries = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entries.append(json.loads(line))
            except ValueError as error:
                raise JournalError(f"line {number} of {path} is damaged; start again in another folder") from error
        return entries

    def append(self, entry: dict[str, Any]) -> None:
        """Write one entry; it survives a kill of this process at once and a power cut within about a second."""
        os.write(self._fd, (json.dumps(entry, ensure_ascii=True, allow_nan=False) + "\n").encode())
        self._unsynced += 1
        if self._unsynced >= _SYNC_LINES or time.monotonic() - self._synced_at >= _SYNC_S:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._fd)
        self._unsynced = 0
        self._synced_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._sync()
        os.close(self._fd)
