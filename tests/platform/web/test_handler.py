"""Requests as an ASGI server hands them over, answered in a few threads that stay."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.core.signals import request_finished
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import re_path
from pytest_django.fixtures import Settings

from tiltyard.web.handler import CHANGES_AT_ONCE, PAGES_AT_ONCE, ThreadedHandler

View = Callable[[HttpRequest], HttpResponseBase]
views: list[View] = []


def dispatch(request: HttpRequest) -> HttpResponseBase:
    return views[-1](request)


urlpatterns = [re_path("", dispatch)]


@pytest.fixture
def handler(settings: Settings) -> ThreadedHandler:
    views.clear()
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    return ThreadedHandler()


class Client:
    """What a server hands over of one request, and what it is told. It leaves when `leaves` is set."""

    def __init__(self, method: str, address: str) -> None:
        headers = [(b"host", b"testserver"), (b"content-type", b"application/x-www-form-urlencoded")]
        self.scope = {"type": "http", "method": method, "path": address, "query_string": b"", "headers": headers}
        self.leaves = asyncio.Event()
        self.sent: list[Mapping[str, Any]] = []
        self._parts: list[Mapping[str, Any]] = [
            {"type": "http.request", "body": b"a=", "more_body": True},
            {"type": "http.request", "body": b"1"},
        ]

    async def receive(self) -> Mapping[str, Any]:
        if self._parts:
            return self._parts.pop(0)
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)

    @property
    def answer(self) -> tuple[int, bytes]:
        return self.sent[0]["status"], b"".join(message.get("body", b"") for message in self.sent[1:])


def answers(handler: ThreadedHandler, *requests: tuple[str, str]) -> list[tuple[int, bytes]]:
    """Status and body of each (method, path), all asked at once."""

    async def ask_all() -> list[tuple[int, bytes]]:
        clients = [Client(*one) for one in requests]
        await asyncio.gather(*[handler(one.scope, one.receive, one.send) for one in clients])
        return [one.answer for one in clients]

    return asyncio.run(ask_all())


def test_one_thread_answers_a_request_from_beginning_to_end(handler: ThreadedHandler) -> None:
    seen: list[str] = []
    finished = lambda **_: seen.append(threading.current_thread().name)  # noqa: E731
    request_finished.connect(finished)

    def name_the_thread(request: HttpRequest) -> HttpResponse:
        seen.append(threading.current_thread().name)
        return HttpResponse(f"{request.method} {request.POST.get('a')}")

    views.append(name_the_thread)
    try:
        assert answers(handler, ("POST", "/")) == [(200, b"POST 1")]
        assert answers(handler, ("GET", "/")) == [(200, b"GET None")]
    finally:
        request_finished.disconnect(finished)
    assert [name.partition("_")[0] for name in seen] == ["change", "change", "page", "page"]
    assert (seen[0], seen[2]) == (seen[1], seen[3])


def test_few_pages_are_made_at_once(handler: ThreadedHandler) -> None:
    lock, now, most = threading.Lock(), [0], [0]
    all_here = threading.Barrier(PAGES_AT_ONCE, timeout=20)

    def count(request: HttpRequest) -> HttpResponse:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        all_here.wait()
        with lock:
            now[0] -= 1
        if request.path == "/broken/":
            raise ValueError
        return HttpResponse("ok")

    views.append(count)
    pages = [("GET", "/broken/" if number % 3 == 0 else "/") for number in range(4 * PAGES_AT_ONCE)]
    found = [status for status, _ in answers(handler, *pages)]
    assert sorted(found) == [200] * 5 + [500] * 3, "an error keeps no thread"
    assert most[0] == PAGES_AT_ONCE


def test_what_changes_something_waits_for_no_page(handler: ThreadedHandler) -> None:
    all_here = threading.Barrier(PAGES_AT_ONCE + CHANGES_AT_ONCE, timeout=20)

    def meet(_request: HttpRequest) -> HttpResponse:
        all_here.wait()
        return HttpResponse("ok")

    views.append(meet)
    requests = [("GET", "/")] * PAGES_AT_ONCE + [("POST", "/")] * CHANGES_AT_ONCE
    assert {status for status, _ in answers(handler, *requests)} == {200}


def test_an_answer_in_parts_is_sent_as_it_is_read_and_closed(handler: ThreadedHandler) -> None:
    class Parts:
        was_closed = False

        def __iter__(self) -> Iterator[bytes]:
            yield from (b"one ", b"two ", b"three")

        def close(self) -> None:
            Parts.was_closed = True

    views.append(lambda _: StreamingHttpResponse(Parts()))
    assert answers(handler, ("GET", "/")) == [(200, b"one two three")]
    assert Parts.was_closed


def test_a_file_is_sent_in_large_parts(handler: ThreadedHandler, tmp_path: Path) -> None:
    content = bytes(300_000)
    (tmp_path / "file").write_bytes(content)
    views.append(lambda _: FileResponse((tmp_path / "file").open("rb")))

    async def ask(method: str) -> Client:
        client = Client(method, "/")
        await handler(client.scope, client.receive, client.send)
        return client

    client = asyncio.run(ask("GET"))
    assert client.answer == (200, content)
    assert len(client.sent) == 1 + 5 + 1
    client = asyncio.run(ask("HEAD"))
    assert client.answer == (200, b"")
    assert (b"Content-Length", b"300000") in client.sent[0]["headers"]


def test_a_client_that_leaves_before_its_body_has_come_is_not_answered(handler: ThreadedHandler) -> None:
    async def ask() -> Client:
        client = Client("POST", "/")
        client._parts.clear()
        client.leaves.set()
        await handler(client.scope, client.receive, client.send)
        return client

    assert asyncio.run(ask()).sent == []


def test_who_leaves_while_waiting_for_a_thread_is_not_worked_for(handler: ThreadedHandler) -> None:
    goes_on, served = threading.Event(), list[str]()

    def wait(request: HttpRequest) -> HttpResponse:
        served.append(request.path)
        goes_on.wait(20)
        return HttpResponse("ok")

    views.append(wait)

    async def ask() -> list[Client]:
        clients = [Client("GET", f"/{number}/") for number in range(PAGES_AT_ONCE + 2)]
        asked = [asyncio.ensure_future(handler(one.scope, one.receive, one.send)) for one in clients]
        while len(served) < PAGES_AT_ONCE:
            await asyncio.sleep(0.01)
        clients[-2].leaves.set()
        await asked[-2]
        goes_on.set()
        await asyncio.gather(*asked)
        return clients

    *clients, left, last = asyncio.run(ask())
    assert left.sent == []
    assert left.scope["path"] not in served
    assert [one.answer for one in [*clients, last]] == [(200, b"ok")] * (PAGES_AT_ONCE + 1)


def test_nobody_reads_on_for_a_client_that_has_left(handler: ThreadedHandler) -> None:
    class Parts:
        was_closed = False
        read = 0

        def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
            self._leave = lambda: loop.call_soon_threadsafe(client.leaves.set)

        def __iter__(self) -> Iterator[bytes]:
            for _ in range(1000):
                Parts.read += 1
                self._leave()
                time.sleep(0.01)
                yield b"part"

        def close(self) -> None:
            Parts.was_closed = True

    async def ask() -> None:
        client = Client("GET", "/")
        loop = asyncio.get_running_loop()
        views.append(lambda _: StreamingHttpResponse(Parts(client, loop)))
        await handler(client.scope, client.receive, client.send)

    asyncio.run(ask())
    assert 0 < Parts.read < 10
    assert Parts.was_closed


@pytest.mark.parametrize(
    ("method", "address", "threads"),
    [
        ("GET", "/healthz", "probe"),
        ("GET", "/readyz", "probe"),
        ("HEAD", "/", "page"),
        ("POST", "/accounts/login/", "change"),
        ("POST", "/competitions/demo/submit/", "upload"),
        ("POST", "/api/v1/competitions/demo/submissions", "upload"),
    ],
)
def test_probes_pages_changes_and_uploads_do_not_wait_for_each_other(
    handler: ThreadedHandler, method: str, address: str, threads: str
) -> None:
    seen: list[str] = []

    def name_the_thread(_request: HttpRequest) -> HttpResponse:
        seen.append(threading.current_thread().name)
        return HttpResponse("ok")

    views.append(name_the_thread)
    assert answers(handler, (method, address))[0][0] == 200
    assert [name.partition("_")[0] for name in seen] == [threads]


def test_what_is_not_http_is_refused(handler: ThreadedHandler) -> None:
    with pytest.raises(ValueError, match="websocket"):
        asyncio.run(handler({"type": "websocket"}, None, None))  # type: ignore[arg-type]
