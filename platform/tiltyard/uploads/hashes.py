"""How far an upload's file is hashed and checked, kept beside it between requests, processes and kills of the server.

A state is believed only in the boot of the machine that wrote it: after a power cut the disk may hold less than was
hashed. What the client said of each piece is good beyond that, as what the file is held to again.
"""

import json
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

from tiltyard import sha256
from tiltyard.sha256 import Sha256

_LIVE_MAX: Final = 256  # of uploads remembered by this process, where a hash cannot be put aside
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass
class Mark:
    """The hash of the file's first `end_bytes` bytes."""

    end_bytes: int = 0
    running: Sha256 = field(default_factory=sha256.new)

    def update(self, content: bytes | memoryview) -> None:
        self.running.update(content)
        self.end_bytes += len(content)

    def copy(self) -> "Mark":
        return Mark(self.end_bytes, self.running.copy())


class Piece(NamedTuple):
    """A part of the file that arrived as the client has it: where it ends, and its XXH3-128."""

    end_bytes: int
    digest: bytes


@dataclass(frozen=True)
class Progress:
    """How far a file is hashed, how far it is checked, and the pieces by which it was or is to be checked, each of
    which begins where the one before it ends. `is_promised`: whether the client gives digests of pieces at all."""

    hashed: Mark = field(default_factory=Mark)
    checked: Mark = field(default_factory=Mark)
    pieces: tuple[Piece, ...] = ()
    is_promised: bool = False


def load(path: Path, size_bytes: int) -> Progress:
    """What `save` wrote about a file of now this size; nothing hashed and checked where that cannot be used."""
    try:
        values = json.loads(path.read_bytes())
        pieces = tuple(Piece(int(end), bytes.fromhex(digest)) for end, digest in values["pieces"])
        unhashed = Progress(pieces=pieces, is_promised=bool(values["promised"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Progress()
    try:
        if values["boot"] != _boot():
            return unhashed
        found = _live.get(path, values["token"]) or Progress(_mark(values["hashed"]), _mark(values["checked"]))
    except (ValueError, KeyError, TypeError):
        return unhashed
    if not found.checked.end_bytes <= found.hashed.end_bytes <= size_bytes:  # of another file, or a longer one
        return unhashed
    return replace(unhashed, hashed=found.hashed.copy(), checked=found.checked.copy())


def save(path: Path, progress: Progress) -> None:
    """Replace what is written, in one step. Only the writer who holds the file's lock may."""
    token = secrets.token_hex(8)
    values: dict[str, Any] = {"boot": _boot(), "token": token, "hashed": _values(progress.hashed)}
    values["checked"] = _values(progress.checked)
    values["promised"] = progress.is_promised
    values["pieces"] = [(piece.end_bytes, piece.digest.hex()) for piece in progress.pieces]
    if sha256.state_of(progress.hashed.running) is None:
        _live.put(path, token, Progress(progress.hashed.copy(), progress.checked.copy()))
    scratch = path.with_suffix(".newstate")
    scratch.write_text(json.dumps(values), encoding="ascii")
    scratch.replace(path)


def _values(mark: Mark) -> dict[str, Any]:
    state = sha256.state_of(mark.running)
    return {"end_bytes": mark.end_bytes, "state": state.hex() if state is not None else ""}


def _mark(values: dict[str, Any]) -> Mark:
    running = sha256.resumed(bytes.fromhex(values["state"]))
    if running is None:
        raise ValueError("this process cannot go on from that")
    return Mark(int(values["end_bytes"]), running)


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return ""


class _Live:
    """Hashes that cannot leave this process, each good as long as what is saved has its token."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, tuple[str, Progress]] = OrderedDict()
        self._lock = Lock()

    def get(self, path: Path, token: str) -> Progress | None:
        with self._lock:
            found = self._kept.get(path)
        return found[1] if found and found[0] == token else None

    def put(self, path: Path, token: str, progress: Progress) -> None:
        with self._lock:
            self._kept[path] = token, progress
            self._kept.move_to_end(path)
            while len(self._kept) > _LIVE_MAX:
                self._kept.popitem(last=False)


_live = _Live()
