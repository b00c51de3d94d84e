"""What is remembered of an unfinished upload across calls of the command: its place at the server. It is lost without
harm: the file is then sent from its start.
"""

import contextlib
import hashlib
import json
from pathlib import Path

from tiltyard.cli.config import cache_dir


class UploadMemory:
    """Of one file on its way to one target; a file that has changed since is another one.

    With its `content_sha256`, a file of the same content is the same one wherever it lies.
    """

    def __init__(self, target: str, path: Path, *, content_sha256: str) -> None:
        stat = path.stat()
        whereabouts = f"{path.resolve()} {stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
        name = hashlib.sha256(f"{target} {content_sha256 or whereabouts}".encode()).hexdigest()[:32]
        self._path = cache_dir() / "uploads" / f"{name}.json"
        self.place = ""  # at the server
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            place = json.loads(self._path.read_text(encoding="utf-8"))["place"]
            self.place = place if isinstance(place, str) else ""

    def keep(self, place: str) -> None:
        """Remember where the upload is."""
        self.place = place
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        scratch = self._path.with_suffix(".new")
        scratch.write_text(json.dumps({"place": place}), encoding="utf-8")
        scratch.replace(self._path)

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)
