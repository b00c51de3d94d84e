"""Answers that are strange as HTTP or JSON: bounded in time and memory, told in words, and the honest ones accepted."""

import gzip
import resource
import socket
import time
from pathlib import Path

import pytest
from raw_server import Answer, endless, head, plain, raw_server
from twenty_questions import QUESTIONS, ask

from tiltyard_eval.errors import RunFailed

MAX_GROWTH_KIB = 64 * 1024


def chunked(connection: socket.socket, document: bytes, *, after: bytes = b"0\r\n\r\n", extension: bytes = b"") -> None:
    chunk = b"%x%s\r\n%s\r\n" % (len(document), extension, document)
    connection.sendall(head("Transfer-Encoding: chunked") + chunk + after)


def after(beginning: bytes, piece: bytes) -> Answer:
    """A beginning, then the same piece without end."""

    def answer(connection: socket.socket, _document: bytes) -> None:
        connection.sendall(beginning)
        endless(connection, piece)

    return answer


def body(content: bytes, *headers: str, status: str = "200 OK") -> Answer:
    """This body, whatever would have been right."""
    return lambda connection, _: connection.sendall(
        head(f"Content-Length: {len(content)}", *headers, status=status) + content
    )


def hinted(connection: socket.socket, document: bytes) -> None:
    """Interim responses go before the real one (RFC 9110, section 15.2)."""
    connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
    plain(connection, document)


def with_trailer(connection: socket.socket, document: bytes) -> None:
    chunked(connection, document, after=b"0\r\nServer-Timing: x\r\n\r\n", extension=b";name=value")


def with_more_fields(connection: socket.socket, document: bytes) -> None:
    plain(connection, document.replace(b'"choices"', b'"usage": {"total_tokens": 1e999}, "id": null, "choices"'))


@pytest.mark.parametrize("answer", [plain, chunked, hinted, with_trailer, with_more_fields])
def test_what_the_standards_allow_is_read(tmp_path: Path, answer: Answer) -> None:
    with raw_server(answer) as url:
        answers, _ = ask(tmp_path, url)
    assert {answers[question.key].text for question in QUESTIONS} == {" 5"}


BOMB = gzip.compress(bytes(64 * 1024 * 1024))
CHOICE = b'{"index": 0, "text": " 5"}'
STRANGE: dict[str, tuple[Answer, str, str]] = {
    "headers without end": (after(b"HTTP/1.1 200 OK\r\n", b"X-More: y\r\n" * 1000), "protocol_error", "well-formed"),
    "one header without end": (after(b"HTTP/1.1 200 OK\r\nX-Long: ", b"y" * 65536), "protocol_error", "well-formed"),
    "a status line without end": (after(b"HTTP/1.1 200 O", b"K" * 65536), "protocol_error", "well-formed"),
    "two lengths": (body(b"{}", "Content-Length: 3"), "protocol_error", "well-formed"),
    "a length below zero": (
        lambda connection, _: connection.sendall(head("Content-Length: -1") + b"{}"),
        *("protocol_error", "well-formed"),
    ),
    "a length of terabytes": (
        lambda connection, _: connection.sendall(head("Content-Length: 9999999999999")),
        *("response_too_large", "1048576 bytes"),
    ),
    "chunks without end": (
        after(head("Transfer-Encoding: chunked"), b"10000\r\n" + b" " * 65536 + b"\r\n"),
        *("response_too_large", "1048576 bytes"),
    ),
    "a compressed bomb": (body(BOMB, "Content-Encoding: gzip"), "protocol_error", "compressed"),
    "a bomb under two codings": (body(BOMB, "Content-Encoding: identity, gzip"), "protocol_error", "compressed"),
    "another protocol": (
        body(b"", "Upgrade: h2c", status="101 Switching Protocols"),
        *("protocol_error", "status 101"),
    ),
    "no content": (body(b"", status="204 No Content"), "protocol_error", "status 204"),
    "UTF-16": (body('{"choices": []}'.encode("utf-16")), "protocol_error", "not valid JSON"),
    "a name twice": (
        body(b'{"choices": [%s], "choices": [%s]}' % (CHOICE, CHOICE)),
        *("protocol_error", "not valid JSON"),
    ),
    "a text twice": (
        body(b'{"choices": [{"index": 0, "text": " 4", "text": " 5"}]}'),
        *("protocol_error", "not valid JSON"),
    ),
    "NaN where nobody looks": (
        body(b'{"choices": [%s], "usage": {"total_tokens": NaN}}' % CHOICE),
        *("protocol_error", "not valid JSON"),
    ),
    "two documents": (body(b'{"choices": [%s]} {"choices": []}' % CHOICE), "protocol_error", "not valid JSON"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_answers_are_refused_at_once_and_cost_no_memory(tmp_path: Path, name: str) -> None:
    answer, reason, words = STRANGE[name]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with raw_server(answer) as url, pytest.raises(RunFailed) as failure:
        ask(tmp_path, url, request_timeout_s=20.0)
    assert failure.value.exit_status == 2
    assert failure.value.reason == reason
    assert words in failure.value.message
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB


WITHOUT_END: dict[str, Answer] = {
    "interim responses": after(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000),
    "a chunk's extension": after(head("Transfer-Encoding: chunked") + b"2;", b"x" * 65536),
    "trailers": after(head("Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n", b"X-More: y\r\n" * 1000),
    "lines before the answer": after(b"", b"\r\n" * 1000),
}


@pytest.mark.parametrize("name", WITHOUT_END)
def test_what_goes_on_without_end_ends_with_the_request_s_time(tmp_path: Path, name: str) -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with raw_server(WITHOUT_END[name], good=2) as url, pytest.raises(RunFailed) as failure:
        ask(tmp_path, url, request_timeout_s=1.0, batch_size=1)
    assert failure.value.exit_status == 2
    assert time.monotonic() - started < 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB
