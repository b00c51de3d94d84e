"""Threads that watch a container: its output as lines, and the kernel's out-of-memory kills.

Both read a stream of the engine for as long as the run lasts, and between engine and worker there may be a proxy, which
cuts a connection on which nothing was said for some minutes. So a stream that breaks is opened again where it ended.
"""

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import docker
import requests

from tiltyard_sandbox.engine import ENGINE_ERRORS, STREAM_ENDS, EngineStream

LINE_MAX_BYTES: Final = 16 * 1024
JOIN_S: Final = 3.0
REOPEN_S: Final = 0.5
_GONE: Final = frozenset({404, 409})  # removed, or about to be
_FRAME_MAX_BYTES: Final = 1 << 20  # the engine's own have some 16 KiB
_ENGINE_SPEAKS: Final = 3  # a frame's kind; 1 and 2 are what the container wrote
_TEARS_MAX: Final = 10  # in a row: then it is no flood, but a file that is broken
_MAY_BE_MISSING: Final = b"[Output may be missing here: it came faster than it could be read.]\n"
_FRACTION: Final = re.compile(r"\.(\d+)")
_LOG = logging.getLogger(__name__)


class LastingStream:
    """A stream of the engine that one thread reads, opened again when it breaks, until it is stopped.

    `params` are asked for at each opening. The first one raises one of ENGINE_ERRORS.
    """

    def __init__(self, client: docker.DockerClient, path: str, params: Callable[[], dict[str, Any]]) -> None:
        self._client = client
        self._path = path
        self._params = params
        self.is_away = False  # broken, and the engine did not answer since
        self._has_more = False
        self._lock = threading.Lock()
        self._is_stopped = threading.Event()
        self._stream = EngineStream.open(client, path, params())

    def connections(self) -> Iterator[Iterator[bytes]]:
        """The chunks of one connection after the other; ends with the answer, or when it is stopped."""
        while True:
            is_broken = threading.Event()
            self._has_more = False
            try:
                yield _until_broken(self._stream, is_broken)
            finally:
                self._stream.release()
            if not (is_broken.is_set() or self._has_more) or not self._is_reopened():
                return

    def expect_more(self) -> None:
        """To be called by the reader: the answer that it reads ends early, and is to be asked for again."""
        self._has_more = True

    def stop(self) -> None:
        """End the reader's waiting. Safe from any thread, more than once."""
        with self._lock:
            self._is_stopped.set()
            self._stream.cut()

    def _is_reopened(self) -> bool:
        """Try until it is there; False when it was stopped, or the engine has nothing more to say of it."""
        while not self._is_stopped.wait(REOPEN_S):
            try:
                stream = EngineStream.open(self._client, self._path, self._params())
            except requests.exceptions.HTTPError as error:
                if error.response is not None and error.response.status_code in _GONE:
                    return False
                self.is_away = True
                continue
            except ENGINE_ERRORS as error:
                _LOG.debug("a stream of the engine cannot be opened again: %s", error)
                self.is_away = True
                continue
            self.is_away = False
            with self._lock:
                if not self._is_stopped.is_set():
                    self._stream = stream
                    return True
            stream.release()
        return False


def _until_broken(stream: EngineStream, is_broken: threading.Event) -> Iterator[bytes]:
    try:
        yield from stream.chunks()
    except STREAM_ENDS as error:
        _LOG.debug("a stream of the engine broke: %s", error)
        is_broken.set()


class LinePump:
    """Hands a container's output to a callback, line by line, on a thread, up to a number of bytes.

    An error of the callback stops the pump and is kept in `error` for the one who waits.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        container_id: str,
        callback: Callable[[str], None],
        *,
        bytes_max: int,
        stdout: bool = True,
        stderr: bool = True,
    ) -> None:
        self._reached = Reached()
        wanted = {"follow": 1, "stdout": int(stdout), "stderr": int(stderr), "timestamps": 1}
        self._stream = LastingStream(
            client, f"/containers/{container_id}/logs", lambda: wanted | self._reached.parameters()
        )
        self._callback = callback
        self._bytes_max = bytes_max
        self._tears = 0  # after which nothing new came
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="container-output", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether no further line will come."""
        return not self._thread.is_alive()

    def finish(self) -> None:
        """Wait a moment for the last lines of a container that has ended, then close."""
        if not self._stream.is_away:
            self._thread.join(JOIN_S)
        self._stream.stop()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        try:
            for line in _lines(self._output(), self._bytes_max):
                self._callback(line)
        except Exception as error:
            self.error = error

    def _output(self) -> Iterator[bytes]:
        for chunks in self._stream.connections():
            for content in self._reached.new_in(self._written(_frames(chunks))):
                self._tears = 0
                yield content

    def _written(self, frames: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
        """The container's own frames, up to where the engine says that it cannot go on.

        It does so when it read a file of the log that a flood of output made it remove in the same moment.
        """
        for kind, frame in frames:
            if kind == _ENGINE_SPEAKS:
                self._tears += 1
                if self._tears > _TEARS_MAX:
                    _LOG.warning("the engine cannot read a container's output: %s", _text(frame[:LINE_MAX_BYTES]))
                    return
                self._reached.is_torn = True
                self._stream.expect_more()
                return
            yield frame


class Reached:
    """How far a container's output has been read, by the engine's time stamps: a reader can go on from there."""

    def __init__(self) -> None:
        self._stamp = b""
        self._count = 0  # of frames with this stamp
        self.is_torn = False  # what comes next may not be what was written next
        self._is_line_over = True

    def parameters(self) -> dict[str, str]:
        """With which the engine begins at the last stamp that was read."""
        if not self._stamp:
            return {}
        text = self._stamp.decode("ascii")
        seconds = int(datetime.fromisoformat(text).timestamp())
        fraction = _FRACTION.search(text)
        return {"since": f"{seconds}.{fraction[1] if fraction else 0}"}

    def new_in(self, frames: Iterator[bytes]) -> Iterator[bytes]:
        """What one connection brings, without the stamps and without what was read before."""
        known = self._count
        for frame in frames:
            stamp, _, content = frame.partition(b" ")
            if stamp == self._stamp:
                if known > 0:
                    known -= 1
                    continue
                self._count += 1
            else:
                self._stamp, self._count, known = stamp, 1, 0
            if self.is_torn:
                self.is_torn = False
                yield (b"" if self._is_line_over else b"\n") + _MAY_BE_MISSING
            self._is_line_over = content.endswith(b"\n")
            yield content


def _frames(parts: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Kind and content, piece by piece as the engine frames them: a byte of kind, three of zero, 4 of length."""
    pending = bytearray()
    for part in parts:
        pending += part
        while len(pending) >= 8:
            end = 8 + int.from_bytes(pending[4:8], "big")
            if end > _FRAME_MAX_BYTES:
                raise ValueError(f"The engine's stream has a frame of {end} bytes.")
            if len(pending) < end:
                break
            yield pending[0], bytes(pending[8:end])
            del pending[:end]


def _lines(parts: Iterator[bytes], bytes_max: int) -> Iterator[str]:
    """The stream's lines, decoded, overlong ones cut into pieces; a last line says when the cap was reached."""
    pending = b""
    left_bytes = bytes_max
    for part in parts:
        pending += part[:left_bytes]
        left_bytes -= min(len(part), left_bytes)
        *whole, pending = pending.split(b"\n")
        for line in whole:
            yield _text(line[:LINE_MAX_BYTES])
        if len(pending) > LINE_MAX_BYTES:
            yield _text(pending)
            pending = b""
        if left_bytes <= 0:
            yield f"[The output is longer than {bytes_max} bytes; the rest is left out.]"
            return
    if pending:
        yield _text(pending)


def _text(line: bytes) -> str:
    """Hostile bytes as one printable line: no terminal escapes, no control characters."""
    text = line.decode("utf-8", errors="replace").rstrip("\r")
    return "".join(character if character.isprintable() or character == "\t" else "�" for character in text)


class OomWatch:
    """Notes, on a thread, that the kernel killed a process in one of the given containers for memory.

    The container's own flag is set only when it ends, and says nothing of a child that died while the server went on.
    """

    def __init__(self, client: docker.DockerClient, container_ids: list[str]) -> None:
        self.killed: set[str] = set()
        # From the first on that the engine remembers: what happened before the stream was opened again counts, too.
        params = {"since": "1", "filters": json.dumps({"container": container_ids, "event": ["oom"]})}
        self._stream = LastingStream(client, "/events", lambda: params)
        self._thread = threading.Thread(target=self._run, name="oom-events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the stream; what was seen stays in `killed`."""
        self._stream.stop()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        for chunks in self._stream.connections():
            pending = b""
            for part in chunks:
                *events, pending = (pending + part).split(b"\n")
                self.killed.update(str(json.loads(event)["Actor"]["ID"]) for event in events if event.strip())
