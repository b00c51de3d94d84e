"""Threads that watch a container: its output as lines, and the kernel's out-of-memory kills."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import docker

from tiltyard_sandbox.engine import ENGINE_ERRORS

LINE_MAX_BYTES: Final = 16 * 1024
JOIN_S: Final = 3.0
_LOG = logging.getLogger(__name__)
# What a stream raises when its other end, or our own `close`, cuts it off.
_STREAM_ENDS: Final = (*ENGINE_ERRORS, OSError, ValueError, AttributeError)


class LinePump:
    """Hands a container's output to a callback, line by line, on a thread, up to a number of bytes.

    An error of the callback stops the pump and is kept in `error` for the one who waits.
    """

    def __init__(
        self,
        container: Any,
        callback: Callable[[str], None],
        *,
        bytes_max: int,
        stdout: bool = True,
        stderr: bool = True,
    ) -> None:
        self._stream = container.logs(stream=True, follow=True, stdout=stdout, stderr=stderr)
        self._callback = callback
        self._bytes_max = bytes_max
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="container-output", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait a moment for the last lines of a container that has ended, then close."""
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            self._stream.close()
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        try:
            for line in _lines(self._stream, self._bytes_max):
                self._callback(line)
        except _STREAM_ENDS as error:
            _LOG.debug("container output ended: %s", error)
        except Exception as error:
            self.error = error
        finally:
            self._stream.close()


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
        self._stream = client.api.events(filters={"container": container_ids, "event": "oom"}, decode=True)
        self._thread = threading.Thread(target=self._run, name="oom-events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the stream; what was seen stays in `killed`."""
        self._stream.close()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        try:
            for event in self._stream:
                self.killed.add(str(event.get("id") or event.get("Actor", {}).get("ID", "")))
        except _STREAM_ENDS as error:
            _LOG.debug("event stream ended: %s", error)
