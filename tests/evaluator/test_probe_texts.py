"""What a participant reads when the server is not ready or does not speak the protocol: what is wrong, what to do."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import challenge_2023_server
import pytest
from eval_suites import RecordingReporter

from tiltyard_eval.config import RunConfig, RunFacts
from tiltyard_eval.errors import RunFailed
from tiltyard_eval.journal import Journal
from tiltyard_eval.retry import RetryPolicy
from tiltyard_eval.session import Session

Pages = Mapping[str, tuple[int, bytes]]


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pages(get: Pages, post: Pages) -> type[BaseHTTPRequestHandler]:
    """A server of fixed answers; a page that takes POST alone answers a GET with 405, as most frameworks do."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(get.get(self.path, (405 if self.path in post else 404, b"{}")))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(post.get(self.path, (404, b"{}")))

        def answer(self, page: tuple[int, bytes]) -> None:
            self.send_response(page[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(page[1])))
            self.end_headers()
            self.wfile.write(page[1])

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def refusal(folder: Path, url: str, *kinds: str, **settings: Any) -> str:
    config = RunConfig(url=url, suite="", **{"adapter": "openai", "start_timeout_s": 0.3, **settings})
    with Journal(folder / "journal.jsonl", fresh=True) as journal, pytest.raises(RunFailed) as failure:
        Session(config, journal, RunFacts(), RecordingReporter(), RetryPolicy(pauses_s=(0.01,))).prepare(
            kinds or ("generate",)
        )
    assert failure.value.reason in {"start_timeout", "protocol_error"}
    return failure.value.message


@pytest.fixture
def free_address() -> str:
    """A port at which nobody listens any more."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


HEALTHY = {"/health": (200, b"{}")}


@pytest.mark.parametrize(
    ("get", "words"),
    [
        ({}, "it listens, but has no page /health (status 404). With the adapter 'openai' a server is ready when GET"),
        ({"/health": (503, b"")}, "it listens, but the last status of GET /health was 503."),
    ],
)
def test_not_ready(tmp_path: Path, get: Pages, words: str) -> None:
    with serving(pages(get, {})) as url:
        assert words in refusal(tmp_path, url)


def test_nothing_listens_names_both_ports(tmp_path: Path, free_address: str) -> None:
    message = refusal(tmp_path, free_address)
    assert f"nothing listened or answered at {free_address}" in message
    assert "TILTYARD_PORT" in message
    assert "port 80" in message


@pytest.mark.parametrize(
    ("adapter", "path", "kind", "shape"),
    [
        ("openai", "/v1/completions", "generate", '{"choices": [{"index": 0, "text": "…", "finish_reason": "stop"}]}'),
        ("openai", "/v1/chat/completions", "chat", '"message": {"content": "…"}'),
        ("openai", "/v1/completions", "loglikelihood", '"usage": {"prompt_tokens", "completion_tokens"}'),
        ("native", "/v1/generate", "generate", '{"outputs": [{"text": "…"'),
        ("native", "/v1/loglikelihood", "loglikelihood", '"is_greedy": false'),
        ("neurips2023", "/process", "generate", '{"text": "…"}'),
        ("neurips2023", "/tokenize", "loglikelihood", '{"tokens": [1, 2]}'),
    ],
)
def test_every_refusal_shows_the_request_and_the_answer_that_is_needed(
    tmp_path: Path, adapter: str, path: str, kind: str, shape: str
) -> None:
    with serving(pages(HEALTHY, {path: (200, b'{"error": "what?"}')})) as url:
        message = refusal(tmp_path, url, kind, adapter=adapter)
    assert f"POST {path}" in message
    assert shape in message
    assert message.endswith("No question was asked.")
    assert len(message) < 700


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'{"text": null}', '"text" must be a string'),
        (b'{"text": 5}', '"text" must be a string'),
        (b'{"text": ["5"]}', '"text" must be a string'),
        (b'{"text": "\\udc00"}', "surrogate"),
        (b'{"text": "5", "logprob": NaN}', "not valid JSON"),
        (b'{"text": "4", "text": "5"}', "not valid JSON"),
        (b'[{"text": "5"}]', '"text" must be a string'),
    ],
)
def test_an_image_of_2023_is_held_to_its_answers(tmp_path: Path, answer: bytes, words: str) -> None:
    with serving(pages(HEALTHY, {"/process": (200, answer)})) as url:
        assert words in refusal(tmp_path, url, adapter="neurips2023")


def test_an_error_inside_the_server_points_to_its_log(tmp_path: Path) -> None:
    with serving(pages(HEALTHY, {"/v1/completions": (500, b"{}")})) as url:
        assert "status 500 instead of 200, an error inside the server: see its log" in refusal(tmp_path, url)


@pytest.mark.parametrize(
    ("asked", "path", "spoken"),
    [
        ("openai", "/v1/generate", "native"),
        ("native", "/process", "neurips2023"),
        ("neurips2023", "/v1/completions", "openai"),
    ],
)
def test_a_server_that_speaks_another_adapter_is_told_so(tmp_path: Path, asked: str, path: str, spoken: str) -> None:
    with serving(pages(HEALTHY, {path: (200, b"{}")})) as url:
        message = refusal(tmp_path, url, adapter=asked)
    assert "there is no such page (status 404)" in message
    assert f"write `adapter: {spoken}` into tiltyard.yaml" in message


def test_a_chat_suite_names_the_adapter_that_can(tmp_path: Path) -> None:
    with serving(pages(HEALTHY, {})) as url:
        assert "`adapter: openai`" in refusal(tmp_path, url, "chat", adapter="native")


class PostOnly(challenge_2023_server.Handler):
    """Python's own server answers 501 to a method that it was not written for."""

    def __getattribute__(self, name: str) -> Any:
        if name == "do_GET":
            raise AttributeError(name)
        return super().__getattribute__(name)

    def log_message(self, *_: object) -> None:
        pass


class Loading(challenge_2023_server.Handler):
    """What a proxy answers while the server behind it loads its model."""

    def do_GET(self) -> None:  # noqa: N802  the base class's name
        self.reply(502, {})

    def log_message(self, *_: object) -> None:
        pass


def prepared(folder: Path, url: str) -> None:
    config = RunConfig(url=url, adapter="neurips2023", suite="", start_timeout_s=0.5)
    with Journal(folder / "journal.jsonl", fresh=True) as journal:
        Session(config, journal, RunFacts(), RecordingReporter(), RetryPolicy()).prepare()


@pytest.mark.parametrize("handler", [PostOnly, challenge_2023_server.Handler])
def test_an_image_of_2023_is_ready_when_it_answers_at_all(
    tmp_path: Path, handler: type[BaseHTTPRequestHandler]
) -> None:
    with serving(handler) as url:
        prepared(tmp_path, url)


def test_an_image_of_2023_behind_a_proxy_is_not_ready_while_it_loads(tmp_path: Path) -> None:
    with serving(Loading) as url, pytest.raises(RunFailed, match="last status of GET /tokenize was 502") as failure:
        prepared(tmp_path, url)
    assert failure.value.reason == "start_timeout"
