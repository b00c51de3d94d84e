"""Pages and API in threads that stay, under ASGI.

Nothing of ours that Django answers is asynchronous. Its own handler would still begin every request in the event loop,
start two threads for it, and go back into the loop between the middleware and the view; each request would also need a
connection to PostgreSQL from a pool. Here one thread answers a request from beginning to end, as under WSGI, and keeps
its connection with the plans that PostgreSQL has made for it. Bodies are received, and answers sent, in the event loop
as before: a slow client holds no thread.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Final

from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.signals import request_started
from django.http import HttpResponseBadRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import set_script_prefix

from tiltyard.submissions.uploads import Receive, Scope, Send

# Pages are made a few at a time, in the order in which they were asked for: of many at once all get slower together,
# and while one waits for the database another has something to do. What changes something does not wait for them, nor
# they for it: looking through an upload of gigabytes takes minutes.
PAGES_AT_ONCE: Final = 3
CHANGES_AT_ONCE: Final = 8
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class ThreadedHandler(ASGIHandler):
    """Django's ASGI application with a pool of threads for reading requests and one for changing ones."""

    def __init__(self) -> None:
        super().__init__()
        self._pages = ThreadPoolExecutor(PAGES_AT_ONCE, thread_name_prefix="page")
        self._changes = ThreadPoolExecutor(CHANGES_AT_ONCE, thread_name_prefix="change")

    def load_middleware(self, is_async: bool = False) -> None:  # noqa: ARG002  the parent asks for True
        super().load_middleware(is_async=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises ValueError for what is not HTTP."""
        if scope["type"] != "http":
            raise ValueError(f"Only HTTP is answered here, not {scope['type']}.")
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        threads = self._pages if scope["method"] in _SAFE else self._changes
        with body:
            response = await asyncio.get_running_loop().run_in_executor(threads, self._respond, scope, body)
            if not isinstance(response, StreamingHttpResponse):
                await self.send_response(response, send)
                return
            try:
                response.streaming_content = _read_in_threads(iter(response))
                await self.send_response(response, send)
            finally:
                await asyncio.to_thread(response.close)

    def _respond(self, scope: Scope, body: IO[bytes]) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=type(self), scope=scope)
        request, refusal = self.create_request(scope, body)
        response = self.get_response(request) if request is not None else refusal or HttpResponseBadRequest()
        if not response.streaming:
            response.close()  # in this thread, whose connections it looks after; the content is all there
        return response


async def _read_in_threads(content: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (part := await asyncio.to_thread(next, content, None)) is not None:
        yield part
