"""A request's body on its way into an upload's file: blocks fill while others are written, and the hash keeps up."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

from tiltyard.submissions.uploads import Receive
from tiltyard.uploads import disk, files, protocol
from tiltyard.uploads.protocol import TusError

IDLE_S: Final = 60.0  # a connection that brings nothing for so long is given up


_readers = ThreadPoolExecutor(2, thread_name_prefix="read-upload")
T = TypeVar("T")


class Running(Protocol):
    """A hash that goes along."""

    def update(self, block: memoryview, /) -> object: ...


async def append_body(
    file: files.Growing,
    size_bytes: int,
    promised: protocol.Promised,
    receive: Receive,
    patience: asyncio.Timeout,
) -> None:
    """Write in a thread while more comes in, and hold what came against what was promised of it."""
    asked = file.offset_bytes
    await _apart(file.catch_up, patience)
    start = file.offset_bytes
    if start != asked or (promised.piece is not None and promised.piece.from_bytes != file.checked_bytes):
        raise TusError(
            409,
            f"The upload stands at byte {start} and is checked up to byte {file.checked_bytes}. Ask with HEAD where to "
            "go on.",
            {"upload-offset": str(start), "upload-checked-offset": str(file.checked_bytes)},
        )
    piece = None
    if promised.piece is not None:
        file.promise()
        piece = await _apart(file.begin_piece, patience)
    running = protocol.Checksum(promised.algorithm) if promised.algorithm else None
    is_whole = False
    try:
        async with _Appender(file, [one for one in (running, piece) if one is not None]) as appender:
            async for chunk in _body(receive, patience):
                if chunk is None:
                    is_whole = True
                elif start + appender.accepted_bytes + len(chunk) > size_bytes:
                    raise TusError(413, f"More came than the {size_bytes} bytes that were announced.")
                else:
                    await appender.add(chunk)
    finally:
        is_damaged = running is not None and running.digest() != promised.checksum
        if running is not None and (is_damaged or not is_whole):
            file.rewind()
    if is_whole and not is_damaged and piece is not None and promised.piece is not None:
        is_damaged = not file.end_piece(piece, promised.piece.digest, size_bytes=size_bytes)
    if is_whole and is_damaged:
        raise TusError(protocol.CHECKSUM_MISMATCH, "The chunk arrived damaged; send it again.")


async def _apart(work_on: Callable[[Callable[[], bool]], T], patience: asyncio.Timeout) -> T:
    """Hash what is behind, however long that takes: in threads that no connection needs for its writing.

    When this is cancelled, the thread ends after its block, and is waited for: the hash that is saved when the file is
    let go must not be one that changes.
    """
    is_stopped = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(_readers, work_on, is_stopped.is_set)
    try:
        while not work.done():
            await asyncio.wait([work], timeout=IDLE_S / 10)
            _renew(patience)
    finally:
        is_stopped.set()
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):  # a second one; the first is on its way
                await asyncio.wait([work])
    return work.result()


def _renew(patience: asyncio.Timeout) -> None:
    """Something was done; what has been told to end, ends all the same."""
    now = asyncio.get_running_loop().time()
    ends_at = patience.when()
    if ends_at is not None and ends_at > now:
        patience.reschedule(now + IDLE_S)


class _Appender:
    """A buffer fills while the one before it is written and hashed: two are in memory for each connection."""

    def __init__(self, file: files.Growing, running: Sequence[Running]) -> None:
        self._file = file
        self._running = running
        self._start_bytes = file.offset_bytes
        self._filling, self._writing = disk.Buffer(), disk.Buffer()
        self._filling.begin(self._start_bytes)
        self._write: asyncio.Future[None] | None = None
        self._has_failed = False
        self.accepted_bytes = 0

    async def add(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            taken = self._filling.fill(left)
            self.accepted_bytes += taken
            left = left[taken:]
            if self._filling.is_full:
                await self._flush()

    async def __aenter__(self) -> "_Appender":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What came before the connection broke, or was taken over, counts as received.
        try:
            await self._flush()
            await self._settle()
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        """Wait for the thread, cancelled or not: the file is another's, and so is its descriptor, once this is over."""
        while self._write is not None and not self._write.done():
            with contextlib.suppress(asyncio.CancelledError):  # a second one; the first is on its way
                await asyncio.wait([self._write])
        if self._write is not None:
            self._write.exception()

    async def _flush(self) -> None:
        await self._settle()
        if self._has_failed:  # in part: what follows would leave a gap
            return
        self._filling, self._writing = self._writing, self._filling
        self._filling.begin(self._start_bytes + self.accepted_bytes)
        if content := self._writing.content:
            self._write = asyncio.ensure_future(asyncio.to_thread(self._append, content))

    async def _settle(self) -> None:
        """Wait for the buffer that is being written: a thread cannot be stopped, and none must overtake another.

        When this is cancelled, the buffer stays to be waited for, and the lock is not given back before.
        """
        if self._write is not None:
            await asyncio.wait([self._write])
            write, self._write = self._write, None
            self._has_failed = write.exception() is not None
            write.result()

    def _append(self, content: memoryview) -> None:
        self._file.append(content)
        for running in self._running:
            running.update(content)


async def _body(receive: Receive, patience: asyncio.Timeout) -> AsyncIterator[bytes | None]:
    """The body's chunks, then None; without the None where the connection broke."""
    loop = asyncio.get_running_loop()
    renew_at = 0.0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        if loop.time() > renew_at:
            renew_at = loop.time() + IDLE_S / 10
            _renew(patience)
        if chunk := message.get("body"):
            yield chunk
        if not message.get("more_body", False):
            yield None
            return
