"""A model server for tests: answers from a table, or misbehaves in one chosen way. Runs as a process of its own.

    python eval_servers.py --port-file FILE [--answers FILE.json] [--behaviour NAME] [--log FILE]

It listens on a free loopback port and writes the port number into the port file. `--answers` maps prompts to texts.
Standard library only, so that nothing under test is used to test it.
"""

import argparse
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from server_process import serving_process


class State:
    """What the handlers share: options, the count of generation requests, and a lock for both."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.answers: dict[str, str] = json.loads(Path(options.answers).read_text()) if options.answers else {}
        self.behaviour: str = options.behaviour
        self.log = options.log
        self.delay_s: float = options.delay
        self.requests = 0
        self.working = 0
        self.free_at: float | None = None
        self.lock = threading.Lock()

    def count(self, body: dict[str, Any]) -> int:
        with self.lock:
            self.requests += 1
            if self.log:
                with Path(self.log).open("a") as file:
                    file.write(json.dumps(body) + "\n")
            return self.requests


# Behaviours that only change the list of texts or the document; each gets the choices and returns the document.
DOCUMENTS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "null_text": lambda choices: {"choices": [{**choice, "text": None} for choice in choices]},
    "number_text": lambda choices: {"choices": [{**choice, "text": 5} for choice in choices]},
    "empty_text": lambda choices: {"choices": [{**choice, "text": ""} for choice in choices]},
    "rubbish_text": lambda choices: {"choices": [{**choice, "text": " ~?~\n"} for choice in choices]},
    "surrogate": lambda choices: {"choices": [{**choice, "text": "\ud800"} for choice in choices]},
    "long_text": lambda choices: {"choices": [{**choice, "text": " a" * 8000} for choice in choices]},
    "wrong_count": lambda choices: {"choices": [*choices, choices[0]]},
    "no_choices": lambda _choices: {"choices": []},
    "missing_index": lambda choices: {"choices": [{"text": choice["text"]} for choice in choices]},
    "bool_index": lambda choices: {"choices": [{**choice, "index": False} for choice in choices]},
    "duplicate_index": lambda choices: {"choices": [{**choice, "index": 0} for choice in choices]},
    "not_an_object": lambda _choices: [1, 2, 3],
    "error_document": lambda _choices: {"error": {"message": "model not loaded"}},
    "reversed": lambda choices: {"choices": choices[::-1]},
}
RAW: dict[str, bytes] = {
    "nan": b'{"choices": [{"index": 0, "text": NaN}]}',
    "deep": b"[" * 200_000,
    "not_json": b"<html>busy</html>",
    "not_utf8": b'{"choices": [{"index": 0, "text": "\xff\xfe"}]}',
    "huge_integer": b'{"choices": [{"index": ' + b"9" * 10_000 + b', "text": "x"}]}',
    "huge": b'{"choices": [{"index": 0, "text": "' + b"a" * 2_000_000 + b'"}]}',
}
STATUSES = {"status_500": 500, "status_404": 404, "status_503": 503, "redirect": 302}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_request(self, *_args: Any) -> None:
        """Say nothing; requests are in the log file."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(503 if self.state.behaviour == "never_ready" else 200, b"{}")
        elif self.path == "/v1/models":
            self._send(200, json.dumps({"object": "list", "data": [{"id": "table"}]}).encode())
        else:
            self._send(404, b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = self.state.count(body)
        time.sleep(self.state.delay_s)
        name, _, after = self.state.behaviour.partition("@")  # `crash@3`: from the third generation request on
        if number >= int(after or 1) and name not in {"good", "never_ready"}:
            self._misbehave(name, body)
        else:
            self._send(200, json.dumps(self._document(body)).encode())

    def _misbehave(self, name: str, body: dict[str, Any]) -> None:
        if name in DOCUMENTS:
            self._send(200, json.dumps(DOCUMENTS[name](self._choices(_prompts(body)))).encode())
        elif name in RAW:
            self._send(200, RAW[name])
        elif name in STATUSES:
            self._send(STATUSES[name], b"{}", {"Location": "http://127.0.0.1:1/"})
        else:
            getattr(self, f"_behave_{name}")(body)

    def _behave_content_type(self, body: dict[str, Any]) -> None:
        self._send(200, json.dumps(self._document(body)).encode(), {"Content-Type": "text/html"})

    def _behave_gzip(self, _body: dict[str, Any]) -> None:
        self._send(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})

    def _behave_crash(self, _body: dict[str, Any]) -> None:
        os._exit(1)

    def _behave_hang(self, _body: dict[str, Any]) -> None:
        threading.Event().wait()

    def _behave_cut(self, _body: dict[str, Any]) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _behave_not_http(self, _body: dict[str, Any]) -> None:
        self.wfile.write(b"SSH-2.0-nonsense\r\n\r\n")
        self.close_connection = True

    def _behave_single_only(self, body: dict[str, Any]) -> None:
        several = len(_prompts(body)) > 1
        self._send(400 if several else 200, json.dumps(self._document(body)).encode())

    def _behave_refuse(self, body: dict[str, Any]) -> None:
        """500 for every request with a prompt whose answer in the table is REFUSE."""
        refused = any(self.state.answers.get(prompt) == "REFUSE" for prompt in _prompts(body))
        self._send(500 if refused else 200, json.dumps(self._document(body)).encode())

    def _behave_busy_once(self, body: dict[str, Any]) -> None:
        """503 for every second request."""
        self._send(503 if self.state.requests % 2 else 200, json.dumps(self._document(body)).encode())

    def _behave_wait(self, body: dict[str, Any]) -> None:
        """429 for the second that it asks to be left alone for."""
        now_s = time.monotonic()
        with self.state.lock:
            self.state.free_at = self.state.free_at or now_s + 1.0
        if now_s < self.state.free_at:
            self._send(429, b"{}", {"Retry-After": "1"})
        else:
            self._send(200, json.dumps(self._document(body)).encode())

    def _behave_wait_for_ever(self, _body: dict[str, Any]) -> None:
        self._send(429, b"{}", {"Retry-After": "999999999"})

    def _behave_narrow(self, body: dict[str, Any]) -> None:
        """Breaks whatever it works on when it gets more than two requests at once: 500, a cut or 503, in turn."""
        with self.state.lock:
            self.state.working += 1
            crowded = self.state.working > 2
        time.sleep(0.03)
        with self.state.lock:
            self.state.working -= 1
        if not crowded:
            self._send(200, json.dumps(self._document(body)).encode())
        elif self.state.requests % 3 == 0:
            self._send(503, b"{}")
        elif self.state.requests % 3 == 1:
            self._send(500, b"{}")
        else:
            self._behave_cut(body)

    def _behave_drip(self, _body: dict[str, Any]) -> None:
        self._head(200, {"Content-Length": "100000"})
        self._write_until_closed(b" ", pause_s=0.05)

    def _behave_endless(self, _body: dict[str, Any]) -> None:
        self._head(200, {"Connection": "close"})
        self._write_until_closed(b" " * 65536, pause_s=0.0)

    def _write_until_closed(self, chunk: bytes, *, pause_s: float) -> None:
        self.close_connection = True
        try:
            while True:
                self.wfile.write(chunk)
                self.wfile.flush()
                time.sleep(pause_s)
        except OSError:
            return

    def _document(self, body: dict[str, Any]) -> dict[str, Any]:
        choices = self._choices(_prompts(body))
        if self.path == "/v1/generate":
            return {"outputs": [{"text": c["text"], "finish_reason": "stop", "tokens": 1} for c in choices]}
        return {"object": "text_completion", "choices": choices, "usage": {"total_tokens": 1}}

    def _choices(self, prompts: list[str]) -> list[dict[str, Any]]:
        return [
            {"index": index, "text": self.state.answers.get(prompt, " unknown"), "finish_reason": "stop"}
            for index, prompt in enumerate(prompts)
        ]

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)


def _prompts(body: dict[str, Any]) -> list[str]:
    prompts = body.get("prompt", body.get("prompts"))
    return [prompts] if isinstance(prompts, str) else prompts


@contextmanager
def running_server(
    folder: Path,
    *,
    behaviour: str = "good",
    answers: dict[str, str] | None = None,
    delay_s: float = 0.0,
    log: Path | None = None,
) -> Iterator[str]:
    """Start a server process and yield its address; it is ended and awaited afterwards."""
    table = folder / f"answers-{time.monotonic_ns()}.json"
    table.write_text(json.dumps(answers or {}))
    arguments = ["--answers", str(table)]
    arguments += ["--behaviour", behaviour, "--delay", str(delay_s), *(["--log", str(log)] if log else [])]
    with serving_process(__file__, folder, arguments) as address:
        yield address


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port-file", required=True)
    parser.add_argument("--answers")
    parser.add_argument("--behaviour", default="good")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--log")
    options = parser.parse_args()
    Handler.state = State(options)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Path(options.port_file).write_text(f"{server.server_port}\n")
    server.serve_forever()


if __name__ == "__main__":
    main()
