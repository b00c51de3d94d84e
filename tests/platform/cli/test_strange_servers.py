"""The command against servers that are not what they should be."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def answering(unused_port: int) -> Iterator[Callable[[bytes], str]]:
    """A server on a socket that gives every request the same raw answer."""
    listener = socket.create_server(("127.0.0.1", unused_port))
    answers: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answers[-1])

    thread = threading.Thread(target=serve)
    thread.start()

    def use(answer: bytes) -> str:
        answers.append(answer)
        return f"http://127.0.0.1:{unused_port}"

    yield use
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(timeout=10)


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        (http("200 OK", b"<html>hello"), 4, "Tiltyard server"),
        (http("200 OK", b'"text"'), 4, "Update"),
        (http("404 Not Found", b"<html>"), 5, "404"),
        (http("500 Internal Server Error", b'{"detail": null}'), 4, "500"),
        (http("403 Forbidden", b'{"detail": "The competition is not yours."}'), 5, "not yours"),
        (http("302 Found", b"", "Location: https://elsewhere.example/"), 2, "elsewhere.example"),
        (b"rubbish\r\n\r\n", 6, "cannot be reached"),
        (b"", 6, "cannot be reached"),
    ],
)
def test_strange_answers(tiltyard, answering, answer: bytes, code: int, word: str) -> None:
    ran = tiltyard("competitions", "--server", answering(answer))
    assert ran.exit_code == code
    assert word in ran.stderr
    assert "None" not in ran.stderr


def test_an_upload_answered_without_ids_is_an_error(tiltyard, answering, submission: Path) -> None:
    """Whatever the server is, the command never reports a submission that has no id."""
    server = answering(http("201 Created", b'{"submission_id": null}'))
    ran = tiltyard("submit", submission, "--competition", "joust", "--server", server, "--json")
    assert ran.exit_code == 4
    assert "error" in ran.document
