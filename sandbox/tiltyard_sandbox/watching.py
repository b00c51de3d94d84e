"""Threads that watch a container: its output as lines, and the kernel's out-of-memory kills."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final

import docker

from tiltyard_sandbox.engine import STREAM_ENDS, EngineStream

LINE_MAX_BYTES: Final = 16 * 1024
JOIN_S: Final = 3.0
_LOG = logging.getLogger(__name__)


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
        params = {"follow": 1, "stdout": int(stdout), "stderr": int(stderr)}
        self._stream = EngineStream.open(client, f"/containers/{container_id}/logs", params)
        self._callback = callback
        self._bytes_max = bytes_max
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="container-output", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether no further line will come."""
        return not self._thread.is_alive()

    def finish(self) -> None:
        """Wait a moment for the last lines of a container that has ended, then close."""
        self._thread.join(JOIN_S)
        self._stream.cut()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        try:
            for line in _lines(_payloads(_until_cut(self._stream)), self._bytes_max):
                self._callback(line)
        except Exception as error:
            self.error = error
        finally:
            self._stream.release()


def _until_cut(stream: EngineStream) -> Iterator[bytes]:
    """The stream's chunks; being cut off is an ordinary end."""
    try:
        yield from stream.chunks()
    except STREAM_ENDS as error:
        _LOG.debug("a stream of the engine ended: %s", error)


def _payloads(parts: Iterator[bytes]) -> Iterator[bytes]:
    """What the container wrote, without the engine's framing: 4 bytes of kind, 4 of big-endian length, content."""
    pending = bytearray()
    left_bytes = 0
    for part in parts:
        pending += part
        while pending:
            if left_bytes == 0:
                if len(pending) < 8:
                    break
                left_bytes = int.from_bytes(pending[4:8], "big")
                del pending[:8]
            payload = bytes(pending[:left_bytes])
            del pending[:left_bytes]
            left_bytes -= len(payload)
            yield payload


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
        filters = json.dumps({"container": container_ids, "event": ["oom"]})
        self._stream = EngineStream.open(client, "/events", {"filters": filters})
        self._thread = threading.Thread(target=self._run, name="oom-events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the stream; what was seen stays in `killed`."""
        self._stream.cut()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        pending = b""
        try:
            for part in _until_cut(self._stream):
                *events, pending = (pending + part).split(b"\n")
                self.killed.update(str(json.loads(event)["Actor"]["ID"]) for event in events if event.strip())
        finally:
            self._stream.release()
