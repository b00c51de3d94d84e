"""A proxy in front of a real server, which cuts connections as proxies and networks do.

It passes bytes on as they are. What it is told to cut ends at once in the middle of an answer, for both sides.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_METHODS = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ")
_BLOCK_BYTES = 1 << 16

Address = tuple[str, int] | str  # of a TCP port, or the path of a Unix socket


@dataclass(eq=False)
class _Passage:
    """One connection, its way on, and the first line of what was last asked on it."""

    client: socket.socket
    server: socket.socket
    asked: bytes = b""

    def cut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class Cutter:
    """The proxy."""

    target: Address
    url: str = ""
    asked: list[str] = field(default_factory=list)  # the first line of every request
    answer_bytes_max: int | None = None  # of the answers on one connection; then it is cut
    cuts: int = 0
    _open: set[_Passage] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cut(self, asked: str) -> int:
        """Cut the connections whose last request has this in its first line; how many."""
        with self._lock:
            found = [one for one in self._open if asked.encode() in one.asked]
            for one in found:
                one.cut()
            self.cuts += len(found)
        return len(found)

    def serve(self, client: socket.socket) -> None:
        try:
            server = _connected(self.target)
        except OSError:
            client.close()
            return
        passage = _Passage(client, server)
        with self._lock:
            self._open.add(passage)
        back = threading.Thread(target=self._answers, args=(passage,), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while block := client.recv(_BLOCK_BYTES):
                if block.startswith(_METHODS):
                    passage.asked = block.split(b"\r\n", 1)[0]
                    self.asked.append(passage.asked.decode("latin-1"))
                server.sendall(block)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)
        back.join()
        with self._lock:
            self._open.discard(passage)
        client.close()
        server.close()

    def _answers(self, passage: _Passage) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while block := passage.server.recv(_BLOCK_BYTES):
                passage.client.sendall(block)
                passed += len(block)
                if self.answer_bytes_max is not None and passed > self.answer_bytes_max:
                    self.cuts += 1
                    passage.cut()
                    return
        with contextlib.suppress(OSError):
            passage.client.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        with self._lock:
            for one in self._open:
                one.cut()


@contextlib.contextmanager
def cutter(target: Address, *, socket_path: Path | None = None) -> Iterator[Cutter]:
    """In front of `target`: at a Unix socket of this path, or at a free TCP port of the loopback."""
    if socket_path is None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    else:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(socket_path))
        listener.listen(64)
        url = f"unix://{socket_path}"
    made = Cutter(target, url)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=made.serve, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        made.end()
        thread.join()


def _connected(target: Address) -> socket.socket:
    if not isinstance(target, str):
        return socket.create_connection(target)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(target)
    except OSError:
        connection.close()
        raise
    return connection
