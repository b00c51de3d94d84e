"""A server that writes its answers byte by byte, for what HTTP libraries would not let it say. No dependencies."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[[socket.socket, bytes], None]
"""Writes the whole response to a POST; given the connection and the document that an honest server would send."""


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Type: application/json", *lines, "", ""]).encode("latin-1")


def plain(connection: socket.socket, document: bytes) -> None:
    connection.sendall(head(f"Content-Length: {len(document)}") + document)


def endless(connection: socket.socket, piece: bytes) -> None:
    """Write until the client has had enough."""
    with suppress(OSError):
        while True:
            connection.sendall(piece)


@contextmanager
def raw_server(answer: Answer, *, good: int = 0) -> Iterator[str]:
    """Answer GETs and the first `good` POSTs as an `openai` server, with " 5" for every prompt; then by `answer`."""
    left = [good]
    lock = threading.Lock()

    def talk(connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as file:
            while line := file.readline():
                length = 0
                while (header := file.readline().strip()) and header:
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                body = file.read(length)
                if line.startswith(b"GET"):
                    plain(connection, b'{"data": [{"id": "raw"}]}')
                    continue
                with lock:
                    left[0] -= 1
                    honest = left[0] >= 0
                (plain if honest else answer)(connection, _document(json.loads(body)))

    server = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def _document(body: dict[str, object]) -> bytes:
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    choices = [{"index": index, "text": " 5", "finish_reason": "stop"} for index in range(len(prompts))]
    return json.dumps({"choices": choices}).encode()
