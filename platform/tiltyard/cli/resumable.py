"""Sending a large file in pieces (tus 1.0.0), each with a checksum, past broken connections and restarts.

Where an upload stands is the server's to say; which upload a file belongs to is remembered in the cache folder, by
server, competition, track and the file's path, size and time, or its hash where it was made for this one call. So the
same command, given again, goes on where the last one stopped. With a piece goes the XXH3-128 of all that the server has
not checked yet, up to the piece's end: it finds what a line or a disk damages, and takes a fourteenth of the time of
the SHA-256 by which the server names the file. A piece is read anew to be sent, from the kernel's cache as a rule: no
more than a block of it is in memory.
"""

import base64
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

import httpx
import xxhash

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.upload_memory import UploadMemory

SINGLE_REQUEST_BYTES_MAX: Final = 8 << 20  # what is smaller goes in one request
PIECE_BYTES: Final = 64 << 20
_BLOCK_BYTES: Final = 256 << 10
_HASH_BYTES: Final = 1 << 20
_ATTEMPTS_MAX: Final = 44  # without a byte of progress between them; two minutes in all
_DAMAGED_MAX: Final = 5  # pieces of one file; more is no accident of the line
_PAUSE_MIN_S: Final = 0.1
_PAUSE_GROWTH: Final = 1.12  # of the time that a server is away, an eighth is waited too long, at most
_CHECK_PAUSE_MAX_S: Final = 1.0
_CHECK_WAIT_S: Final = 30 * 60.0  # 50 GB are read and unpacked in some minutes, and other files may come first
_LOCATION: Final = re.compile(r"/uploads/[0-9a-f-]{36}")
_TUS: Final = {"Tus-Resumable": "1.0.0"}
_DAMAGED: Final = 460
_PASSING: Final = {408, 409, 423, 425, 429, _DAMAGED, 500, 502, 503, 504}

Document = dict[str, object]
Refusal = Callable[[httpx.Response, str], CliError]


class Standing(NamedTuple):
    """Where an upload is: what the server has, and how much of that it knows to be right."""

    offset_bytes: int
    checked_bytes: int


class ResumableUpload:
    """One file on its way to one track."""

    def __init__(self, http: httpx.Client, server: str, refusal: Refusal, say: Callable[[str], None]) -> None:
        """`refusal` words an answer that is none; `say` is told of pauses."""
        self._http = http
        self._server = server
        self._refusal = refusal
        self._say = say
        self._damaged = 0

    def send(
        self, path: Path, metadata: dict[str, str], on_offset: Callable[[int], None], *, sha256: str = ""
    ) -> Document:
        """Upload the whole file and wait until the server has checked it.

        Args:
            path: Must not change while it is sent.
            metadata: `competition`, `filename` and, optionally, `track`.
            on_offset: Told how many bytes the server has.
            sha256: The file's, where it is known: the server holds the whole file to it, and a later call that sends
                the same content under another path goes on with this upload.

        Raises:
            CliError: When the server refuses the file or stays away.
        """
        size_bytes = path.stat().st_size
        target = f"{self._server} {metadata['competition']} {metadata.get('track', '')}"
        memory = UploadMemory(target, path, content_sha256=sha256)
        resumed = self._resumed(memory, size_bytes)
        announced = metadata | ({"sha256": sha256} if sha256 else {})
        place, standing = resumed or (self._created(size_bytes, announced, memory), Standing(0, 0))
        on_offset(standing.offset_bytes)
        with _Pieces(path) as pieces:
            self._send_rest(pieces, place, standing, on_offset)
            rounds = 0
            while (document := self._checked(place, size_bytes)) is None:
                rounds += 1
                self._pause("The server has lost a part of the file.", rounds, "That is not there yet")
                self._send_rest(pieces, place, self._asked(place) or standing, on_offset)
        memory.forget()
        return document

    def _send_rest(self, pieces: "_Pieces", place: str, standing: Standing, on_offset: Callable[[int], None]) -> None:
        attempts = 0
        if standing.offset_bytes > pieces.size_bytes:
            raise CliError("The server has more than the file. Give the command again to begin anew.")
        while standing.offset_bytes < pieces.size_bytes:
            reached, trouble = self._send_piece(pieces.after(standing), place)
            attempts = 0 if reached.offset_bytes > standing.offset_bytes else attempts + 1
            standing = reached
            on_offset(standing.offset_bytes)
            if trouble:
                there = f"{standing.offset_bytes:,} of {pieces.size_bytes:,} bytes are at the server"
                self._pause(trouble, attempts, there)

    def _resumed(self, memory: UploadMemory, size_bytes: int) -> tuple[str, Standing] | None:
        """The upload that an earlier call began, if the server still has it."""
        place = memory.place
        if not _LOCATION.fullmatch(place):
            return None
        try:
            response = self._http.head(f"{self._server}{place}", headers=_TUS)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if response.status_code != 200 or response.headers.get("upload-length") != str(size_bytes):
            memory.forget()
            return None
        standing = _standing(response)
        if standing.offset_bytes > size_bytes:
            memory.forget()
            return None
        if standing.offset_bytes:
            self._say(f"Going on at byte {standing.offset_bytes:,}: the rest is at the server.")
        return place, standing

    def _created(self, size_bytes: int, metadata: dict[str, str], memory: UploadMemory) -> str:
        words = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())
        headers = {**_TUS, "Upload-Length": str(size_bytes), "Upload-Metadata": words}
        try:
            response = self._http.post(f"{self._server}/uploads/", headers=headers)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if response.status_code != 201:
            raise self._refusal(response, "the upload")
        place = str(response.headers.get("location", ""))
        if not _LOCATION.fullmatch(place):  # the token travels with each piece: to this server and no other
            raise CliError(
                "The server named no place for the upload. Update `tiltyard` or the server.", ExitCode.PLATFORM
            )
        memory.keep(place)
        return place

    def _pause(self, trouble: str, attempts: int, standing: str) -> None:
        """Wait before the next attempt. Raises CliError when there were enough."""
        if attempts >= _ATTEMPTS_MAX:
            raise CliError(f"{trouble} {standing}: give the same command again to send the rest.", ExitCode.UNREACHABLE)
        pause_s = _pause_s(attempts)
        if attempts <= 1 or pause_s >= 1:  # else line would follow on line
            self._say(f"{trouble} Trying again in {pause_s:.1f} s; nothing is lost.")
        time.sleep(pause_s)

    def _send_piece(self, piece: "_Piece", place: str) -> tuple[Standing, str]:
        """Send one piece: where the upload stands then, and what went wrong on the way, or an empty text."""
        headers = _TUS | {
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(piece.end_bytes - piece.start_bytes),
            "Upload-Offset": str(piece.start_bytes),
            "Upload-Piece-Digest": f"xxh3-128=:{base64.b64encode(piece.digest).decode()}:;from={piece.checked_bytes}",
        }
        try:
            response = self._http.patch(f"{self._server}{place}", headers=headers, content=piece.blocks())
            if response.status_code == 204:
                return _standing(response), ""
            if response.status_code not in _PASSING:
                raise self._refusal(response, "the upload")
            self._damaged += response.status_code == _DAMAGED
            if self._damaged > _DAMAGED_MAX:
                raise CliError("The file changes while it is sent, or the line damages it. Send it again.")
            trouble = f"The server answered with status {response.status_code}."
        except httpx.TransportError as error:
            trouble = f"The connection broke ({error or type(error).__name__})."
        return self._asked(place) or Standing(piece.start_bytes, piece.checked_bytes), trouble

    def _asked(self, place: str) -> Standing | None:
        """Where the upload is by now; None when the server does not answer."""
        try:
            response = self._http.head(f"{self._server}{place}", headers=_TUS)
        except httpx.TransportError:
            return None
        if response.status_code in {404, 410}:
            raise CliError("The server has ended this upload. Give the command again to start anew.", ExitCode.REFUSED)
        return _standing(response) if response.status_code == 200 else None

    def _checked(self, place: str, size_bytes: int) -> Document | None:
        """What became of the complete file, once the server has looked at it; None where its disk has lost some of it.

        A file that is held may be so since an earlier call: the server is asked once to try again.
        """
        attempts = asked = 0
        is_held = is_short = False
        deadline = time.monotonic() + _CHECK_WAIT_S
        while attempts < _ATTEMPTS_MAX and time.monotonic() < deadline:
            try:
                url = f"{self._server}{place}"
                response = self._http.post(url, headers=_TUS) if is_held else self._http.get(url)
            except httpx.TransportError:
                attempts += 1
                time.sleep(_pause_s(attempts))
                continue
            if response.status_code != 200:
                raise self._refusal(response, "the upload")
            found: Document = response.json()
            state = found.get("state")
            if state == "accepted":
                return found
            if state == "receiving" and found.get("offset_bytes") != size_bytes:
                if is_short:
                    return None
                is_short = True  # or it has just been refused and removed, and says so the next time
            else:
                is_short = False
            if state == "held" and not is_held:
                is_held = True
                continue
            if state not in {"checking", "receiving"}:
                raise CliError(str(found.get("detail") or "The server refused the file."), ExitCode.USAGE, status=422)
            asked += 1
            time.sleep(min(_CHECK_PAUSE_MAX_S, _pause_s(asked)))
        is_away = attempts >= _ATTEMPTS_MAX
        trouble = "does not answer" if is_away else f"has not checked it within {_CHECK_WAIT_S / 60:.0f} minutes"
        raise CliError(
            f"{self._server} has the whole file, but {trouble}. Nothing has to be sent again: `tiltyard status` will "
            "list the run, and the same command asks again. If it stays so, tell the organisers.",
            ExitCode.UNREACHABLE,
        )

    def _unreachable(self, error: httpx.TransportError) -> CliError:
        return CliError(
            f"The server {self._server} cannot be reached ({error or type(error).__name__}). Check that it runs.",
            ExitCode.UNREACHABLE,
        )


@dataclass(frozen=True)
class _Piece:
    path: Path
    start_bytes: int
    end_bytes: int
    checked_bytes: int
    digest: bytes  # of the file from `checked_bytes` to the piece's end

    def blocks(self) -> Iterator[bytes]:
        """Small ones: the HTTP library copies what is left of one each time the socket has taken a part of it."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start_bytes)
            left = self.end_bytes - self.start_bytes
            while left:
                block = file.read(min(left, _BLOCK_BYTES))
                if not block:
                    raise _shorter(self.path)
                left -= len(block)
                yield block


class _Pieces:
    """The file's pieces, which end at whole multiples of PIECE_BYTES; while one is sent, a thread hashes the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._as_begun = _looked_at(path)
        self.size_bytes = path.stat().st_size
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._next: tuple[tuple[int, int], Future[bytes]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def after(self, standing: Standing) -> _Piece:
        """The piece that comes next. Raises CliError when the file has changed since the first."""
        start, checked = standing
        end = self._end_after(start)
        asked, hashing = self._next or ((0, 0), None)
        digest = hashing.result() if hashing is not None and asked == (checked, end) else self._hash(checked, end)
        if _looked_at(self._path) != self._as_begun:  # after the hash: what is hashed now is sent
            raise (
                _shorter(self._path)
                if self._path.stat().st_size < self.size_bytes
                else CliError(f"{self._path} changes while it is sent. Send it again.")
            )
        if end < self.size_bytes:
            asked = (end, self._end_after(end))
            self._next = asked, self._thread.submit(self._hash, *asked)
        return _Piece(self._path, start, end, checked, digest)

    def _end_after(self, offset: int) -> int:
        return min(offset - offset % PIECE_BYTES + PIECE_BYTES, self.size_bytes)

    def _hash(self, start: int, end: int) -> bytes:
        running = xxhash.xxh3_128()
        buffer = memoryview(bytearray(_HASH_BYTES))
        with self._path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < end:
                count = file.readinto(buffer[: end - start])
                if not count:
                    raise _shorter(self._path)
                start += count
                running.update(buffer[:count])
        return running.digest()


def _looked_at(path: Path) -> tuple[int, ...]:
    """What changes when somebody writes to the file, or puts another in its place."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _shorter(path: Path) -> CliError:
    return CliError(f"{path} became shorter while it was being sent. Send it again.")


def _pause_s(attempts: int) -> float:
    return _PAUSE_MIN_S * _PAUSE_GROWTH**attempts


def _standing(response: httpx.Response) -> Standing:
    texts = [response.headers.get(name, "") for name in ("upload-offset", "upload-checked-offset")]
    if not all(text.isdecimal() for text in texts):
        raise CliError(
            "The server does not say how much has arrived and is right: update `tiltyard` or the server.",
            ExitCode.PLATFORM,
        )
    return Standing(*map(int, texts))
