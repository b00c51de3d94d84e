"""Requests as an ASGI server hands them over, answered in a few threads that stay."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from django.core.signals import request_finished
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import path
from pytest_django.fixtures import Settings

from tiltyard.web.handler import CHANGES_AT_ONCE, PAGES_AT_ONCE, ThreadedHandler

View = Callable[[HttpRequest], HttpResponseBase]
views: list[View] = []


def dispatch(request: HttpRequest) -> HttpResponseBase:
    return views[-1](request)


urlpatterns = [path("", dispatch), path("broken/", dispatch)]


@pytest.fixture
def handler(settings: Settings) -> ThreadedHandler:
    views.clear()
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    return ThreadedHandler()


def answers(handler: ThreadedHandler, *requests: tuple[str, str]) -> list[tuple[int, bytes]]:
    """Status and body of each (method, path), all asked at once."""

    async def ask(method: str, address: str) -> tuple[int, bytes]:
        sent: list[Mapping[str, Any]] = []
        parts: list[Mapping[str, Any]] = [
            {"type": "http.request", "body": b"a=", "more_body": True},
            {"type": "http.request", "body": b"1"},
        ]

        async def receive() -> Mapping[str, Any]:
            return parts.pop(0)

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        headers = [(b"host", b"testserver"), (b"content-type", b"application/x-www-form-urlencoded")]
        scope = {"type": "http", "method": method, "path": address, "query_string": b"", "headers": headers}
        await handler(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

    async def ask_all() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*[ask(*one) for one in requests])

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
    assert sorted(found) == [200] * 8 + [500] * 4, "an error keeps no thread"
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


def test_a_client_that_leaves_before_its_body_has_come_is_not_answered(handler: ThreadedHandler) -> None:
    sent: list[Mapping[str, Any]] = []

    async def leave() -> Mapping[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    asyncio.run(handler(scope, leave, send))
    assert sent == []


def test_what_is_not_http_is_refused(handler: ThreadedHandler) -> None:
    with pytest.raises(ValueError, match="websocket"):
        asyncio.run(handler({"type": "websocket"}, None, None))  # type: ignore[arg-type]
