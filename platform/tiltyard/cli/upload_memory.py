"""What is remembered of an unfinished upload across calls of the command: its place at the server, and how far its file
is hashed. It is lost without harm: the file is then hashed, or sent, from its start.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tiltyard import sha256
from tiltyard.cli.config import cache_dir


class UploadMemory:
    """Of one file on its way to one target; a file that has changed since is another one.

    With its `content_sha256`, a file of the same content is the same one wherever it lies.
    """

    def __init__(self, target: str, path: Path, *, content_sha256: str, piece_bytes: int) -> None:
        stat = path.stat()
        whereabouts = f"{path.resolve()} {stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
        name = hashlib.sha256(f"{target} {content_sha256 or whereabouts} {piece_bytes}".encode()).hexdigest()[:32]
        self._path = cache_dir() / "uploads" / f"{name}.json"
        self.place = ""  # at the server
        self.hashed_bytes = 0
        self._running = sha256.new()
        self._digests: dict[int, str] = {}  # by the end of each piece, of the file up to there
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            self._recall(json.loads(self._path.read_text(encoding="utf-8")))

    def keep(self, place: str) -> None:
        """Remember where the upload is; of another one before it only the hashes stay."""
        self.place = place
        self._write()

    def hash(self, blocks: Iterable[memoryview]) -> None:
        """Take note of a piece: what follows in the file on what is hashed."""
        running, size_bytes = self._running.copy(), 0
        for block in blocks:
            running.update(block)
            size_bytes += len(block)
        self._running = running
        self._digests[self.hashed_bytes + size_bytes] = running.hexdigest()
        self.hashed_bytes += size_bytes  # last: another thread asks for what is hashed
        self._write()

    def sha256_at(self, end: int) -> str:
        """Of the file up to the end of a piece that is hashed."""
        return self._digests[end]

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)

    def _recall(self, values: dict[str, Any]) -> None:
        place = values["place"]
        if isinstance(place, str):
            self.place = place
        running = sha256.resumed(bytes.fromhex(values["state"]))
        if running is not None:
            self._digests = {int(end): str(digest) for end, digest in values["digests"].items()}
            self.hashed_bytes = max(self._digests, default=0)
            self._running = running

    def _write(self) -> None:
        state = sha256.state_of(self._running)
        values = {"place": self.place, "state": state.hex() if state else "", "digests": self._digests}
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        scratch = self._path.with_suffix(".new")
        scratch.write_text(json.dumps(values), encoding="utf-8")
        scratch.replace(self._path)
