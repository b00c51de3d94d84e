"""Pages and API in threads that stay, under ASGI.

Nothing of ours that Django answers is asynchronous. Its own handler would still begin every request in the event loop,
start two threads for it, and go back into the loop between the middleware and the view; each request would also need a
connection to PostgreSQL from a pool. Here one thread answers a request from beginning to end, as under WSGI, and keeps
its connection with the plans that PostgreSQL has made for it. Bodies are received, and answers sent, in the event loop
as before: a slow client holds no thread, and one that has left is not worked for.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, Final

from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.signals import request_started
from django.http import FileResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import set_script_prefix

from tiltyard.submissions.uploads import Receive, RequestHead, Scope, Send

# Pages are made a few at a time, in the order in which they were asked for: of many at once all get slower together,
# and while one waits for the database another has something to do.
PAGES_AT_ONCE: Final = 2
CHANGES_AT_ONCE: Final = 6
# Looking through an upload of gigabytes takes minutes, for which nobody's sign-in may wait.
UPLOADS_AT_ONCE: Final = 3
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PROBES: Final = frozenset({"/healthz", "/readyz"})  # a supervisor restarts what does not answer these


class ThreadedHandler(ASGIHandler):
    """Django's ASGI application with a few threads for each kind of request."""

    def __init__(self) -> None:
        super().__init__()
        self._probes = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._pages = ThreadPoolExecutor(PAGES_AT_ONCE, thread_name_prefix="page")
        self._changes = ThreadPoolExecutor(CHANGES_AT_ONCE, thread_name_prefix="change")
        self._uploads = ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="upload")

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
        gone = asyncio.ensure_future(_left(receive))
        try:
            job = self._threads_for(scope).submit(self._respond, scope, body)
            if await _was_dropped(job, gone):
                body.close()
                return
            await self._answer(job.result(), scope["method"], send, gone)
        finally:
            gone.cancel()

    def _threads_for(self, scope: Scope) -> ThreadPoolExecutor:
        if scope["path"] in _PROBES:
            return self._probes
        if scope["method"] in _SAFE:
            return self._pages
        return self._uploads if RequestHead.read(scope["method"], scope["path"], {}).is_submission else self._changes

    def _respond(self, scope: Scope, body: IO[bytes]) -> HttpResponseBase:
        """In a thread, whose connections are looked after before and, of an answer in one piece, after."""
        with body:
            set_script_prefix(get_script_prefix(scope))
            request_started.send(sender=type(self), scope=scope)
            request, refusal = self.create_request(scope, body)
            response = refusal if request is None else self.get_response(request)
            assert response is not None  # noqa: S101  one of the two is there
            response._handler_class = type(self)  # type: ignore[attr-defined]  # of whom `close` says that it is done
            if isinstance(response, FileResponse):
                response.block_size = self.chunk_size
            if not response.streaming:
                response.close()
            return response

    async def _answer(self, response: HttpResponseBase, method: str, send: Send, gone: "asyncio.Future[None]") -> None:
        if not isinstance(response, StreamingHttpResponse):
            await self.send_response(response, send)
            return
        try:
            content = iter(()) if method == "HEAD" else iter(response)
            response.streaming_content = _read_in_threads(content, gone)
            await self.send_response(response, send)
        finally:
            await asyncio.to_thread(response.close)


async def _left(receive: Receive) -> None:
    """Ends when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _was_dropped(job: "Future[HttpResponseBase]", gone: "asyncio.Future[None]") -> bool:
    """Wait for a job, or drop it if the client leaves before a thread has begun with it."""
    work: asyncio.Future[Any] = asyncio.wrap_future(job)
    await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
    if not work.done() and job.cancel():
        return True
    await asyncio.wait([work])  # what has begun is brought to its end: it may have changed something
    return False


async def _read_in_threads(content: Iterator[bytes], gone: "asyncio.Future[None]") -> AsyncIterator[bytes]:
    while not gone.done() and (part := await asyncio.to_thread(next, content, None)) is not None:
        yield part
