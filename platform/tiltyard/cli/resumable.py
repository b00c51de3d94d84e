"""Sending a large file in pieces (tus 1.0.0), each with a checksum, past broken connections and restarts.

Where an upload stands is the server's to say; which upload a file belongs to is remembered in the cache folder, by
server, competition, track and the file's path, size and time, or its hash where it was made for this one call. So the
same command, given again, goes on where the last one stopped. The checksum that goes with a piece is the SHA-256 of the
file up to the piece's end: the file is hashed once, some pieces ahead of what is sent, and the last piece's is that of
the whole. A piece is read anew to be sent, from the kernel's cache as a rule: no more than a block of it is in memory.
"""

import base64
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import httpx

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.upload_memory import UploadMemory

SINGLE_REQUEST_BYTES_MAX: Final = 8 << 20  # what is smaller goes in one request
PIECE_BYTES: Final = 64 << 20
_AHEAD_BYTES: Final = 512 << 20  # hashed before they are sent, so that the time of a pause is not lost
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
            sha256: The file's, where a later call will send the same content under another path.

        Raises:
            CliError: When the server refuses the file or stays away.
        """
        size_bytes = path.stat().st_size
        target = f"{self._server} {metadata['competition']} {metadata.get('track', '')}"
        memory = UploadMemory(target, path, content_sha256=sha256, piece_bytes=PIECE_BYTES)
        place, offset = self._resumed(memory, size_bytes) or (self._created(size_bytes, metadata, memory), 0)
        on_offset(offset)
        attempts = 0
        with _Pieces(path, size_bytes, memory) as pieces:
            while offset < size_bytes:
                reached, trouble = self._send_piece(pieces.at(offset), place)
                attempts = 0 if reached > offset else attempts + 1
                offset = reached
                on_offset(offset)
                if trouble:
                    self._pause(trouble, attempts, f"{offset:,} of {size_bytes:,} bytes are at the server")
        document = self._checked(place)
        memory.forget()
        return document

    def _resumed(self, memory: UploadMemory, size_bytes: int) -> tuple[str, int] | None:
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
        offset = _offset(response)
        if offset:
            self._say(f"Going on at byte {offset:,}: the rest is at the server.")
        return place, offset

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

    def _send_piece(self, piece: "_Piece", place: str) -> tuple[int, str]:
        """Send one piece: where the upload stands then, and what went wrong on the way, or an empty text."""
        headers = _TUS | {
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(piece.end_bytes - piece.start_bytes),
            "Upload-Offset": str(piece.start_bytes),
            "Upload-Prefix-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(piece.prefix_sha256)).decode()}:",
        }
        try:
            response = self._http.patch(f"{self._server}{place}", headers=headers, content=piece.blocks())
            if response.status_code == 204:
                return _offset(response), ""
            if response.status_code not in _PASSING:
                raise self._refusal(response, "the upload")
            self._damaged += response.status_code == _DAMAGED
            if self._damaged > _DAMAGED_MAX:
                raise CliError("The file changes while it is sent, or the line damages it. Send it again.")
            trouble = f"The server answered with status {response.status_code}."
        except httpx.TransportError as error:
            trouble = f"The connection broke ({error or type(error).__name__})."
        return self._standing(place, piece.start_bytes), trouble

    def _standing(self, place: str, offset: int) -> int:
        """What the server has by now; what was known before, when it does not answer."""
        try:
            response = self._http.head(f"{self._server}{place}", headers=_TUS)
        except httpx.TransportError:
            return offset
        if response.status_code in {404, 410}:
            raise CliError("The server has ended this upload. Give the command again to start anew.", ExitCode.REFUSED)
        return _offset(response) if response.status_code == 200 else offset

    def _checked(self, place: str) -> Document:
        """What became of the complete file, once the server has looked at it.

        A file that is held may be so since an earlier call: the server is asked once to try again.
        """
        attempts = asked = 0
        is_held = False
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
    prefix_sha256: str  # of the file up to the piece's end

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
    """The file's pieces; while one is sent, a thread hashes those that follow.

    They end at whole multiples of PIECE_BYTES, wherever they begin, so that each end is hashed once.
    """

    def __init__(self, path: Path, size_bytes: int, memory: UploadMemory) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self._memory = memory
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._jobs: dict[int, Future[None]] = {}  # by the end that is to be hashed
        self._planned_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def at(self, offset: int) -> _Piece:
        """The piece that starts there."""
        end = self._end_after(offset)
        while self._planned_bytes < min(end + _AHEAD_BYTES, self._size_bytes):
            self._planned_bytes = self._end_after(self._planned_bytes)
            self._jobs[self._planned_bytes] = self._thread.submit(self._hash_to, self._planned_bytes)
        self._jobs[end].result()
        return _Piece(self._path, offset, end, self._memory.sha256_at(end))

    def _end_after(self, offset: int) -> int:
        return min(offset - offset % PIECE_BYTES + PIECE_BYTES, self._size_bytes)

    def _hash_to(self, end: int) -> None:
        """Nothing to do where an earlier call has hashed it already."""
        while (start := self._memory.hashed_bytes) < end:
            self._memory.hash(self._read(start, self._end_after(start)))

    def _read(self, start: int, end: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(_HASH_BYTES))
        with self._path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < end:
                count = file.readinto(buffer[: end - start])
                if not count:
                    raise _shorter(self._path)
                start += count
                yield buffer[:count]


def _shorter(path: Path) -> CliError:
    return CliError(f"{path} became shorter while it was being sent. Send it again.")


def _pause_s(attempts: int) -> float:
    return _PAUSE_MIN_S * _PAUSE_GROWTH**attempts


def _offset(response: httpx.Response) -> int:
    text = response.headers.get("upload-offset", "")
    if not text.isdecimal():
        raise CliError("The server does not say how much has arrived. Is it a Tiltyard server?", ExitCode.PLATFORM)
    return int(text)
