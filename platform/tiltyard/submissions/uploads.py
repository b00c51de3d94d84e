"""Refuse bodies that are too large before they are read: only a participant who hands something in may send much.

Django reads and parses a whole body before a view can look at it. Two doors therefore stand in front: ASGI servers pass
through `UploadSizeLimit`, which also counts what really arrives, and every other request through the middleware. Files
themselves go to disk in chunks (FILE_UPLOAD_HANDLERS), never through memory.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse, parse_cookie

from tiltyard.accounts.models import ApiToken

P = ParamSpec("P")
T = TypeVar("T")
Message = Mapping[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# What a multipart form adds around its file: boundaries, headers, the other fields.
FORM_OVERHEAD_BYTES: Final = 64 * 1024
DISCARDED_BYTES_MAX: Final = 8 << 30
ORDINARY_BYTES_MAX: Final = 1 << 20  # of a request that hands nothing in
NOT_SIGNED_IN: Final = 401
TOO_LARGE: Final = 413
_SUBMIT_PATH: Final = re.compile(r"/api/v1/competitions/[^/]+/submissions|/competitions/[^/]+/submit/")


def human_size(size_bytes: int) -> str:
    """1610612736 as "1.5 GiB"."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def too_large_message(size_bytes: int | None, limit_bytes: int) -> str:
    """What a person reads whose file is over the limit."""
    found = "The upload" if size_bytes is None else f"The upload has {human_size(size_bytes)}, which"
    return (
        f"{found} is more than the {human_size(limit_bytes)} allowed. "
        "Leave out what the server does not need at run time: caches, optimiser states, other checkpoints."
    )


@dataclass(frozen=True)
class Refusal:
    status: int
    detail: str


@dataclass(frozen=True)
class RequestHead:
    """What is known of a request before its body: enough to say how large that may be."""

    method: str
    path: str
    authorization: str
    cookie: str

    @property
    def is_submission(self) -> bool:
        return self.method == "POST" and _SUBMIT_PATH.fullmatch(self.path) is not None

    def refusal(self, size_bytes: int) -> Refusal | None:
        """Why a body of this size is not accepted; asks the database only about large ones."""
        if self.is_submission and size_bytes > _upload_bytes_max():
            return Refusal(TOO_LARGE, too_large_message(size_bytes, int(settings.UPLOAD_BYTES_MAX)))
        if size_bytes <= ORDINARY_BYTES_MAX:
            return None
        if not self.is_submission:
            return Refusal(TOO_LARGE, f"The request has more than the {human_size(ORDINARY_BYTES_MAX)} allowed here.")
        if not self._is_signed_in():
            return Refusal(
                NOT_SIGNED_IN, "Sign in, or send a valid token as “Authorization: Bearer ty_…”, then upload."
            )
        return None

    def limit_bytes(self) -> int:
        """The most that a body may have whose size was not declared."""
        return _upload_bytes_max() if self.is_submission and self._is_signed_in() else ORDINARY_BYTES_MAX

    def _is_signed_in(self) -> bool:
        scheme, _, token = self.authorization.partition(" ")
        if scheme.lower() == "bearer":
            return ApiToken.objects.filter(digest=ApiToken.digest_of(token.strip()), user__is_active=True).exists()
        session_key = parse_cookie(self.cookie).get(settings.SESSION_COOKIE_NAME)
        return SESSION_KEY in import_module(settings.SESSION_ENGINE).SessionStore(session_key)


def _upload_bytes_max() -> int:
    return int(settings.UPLOAD_BYTES_MAX) + FORM_OVERHEAD_BYTES


def upload_size_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Refuse a request whose Content-Length is over its limit."""

    def middleware(request: HttpRequest) -> HttpResponse:
        declared = request.META.get("CONTENT_LENGTH") or "0"
        headers = request.headers
        head = RequestHead(
            request.method or "", request.path, headers.get("Authorization", ""), headers.get("Cookie", "")
        )
        refusal = head.refusal(int(declared)) if declared.isdecimal() else None
        if refusal is not None:
            return JsonResponse({"detail": refusal.detail}, status=refusal.status)
        return get_response(request)

    return middleware


class UploadSizeLimit:
    """The same at ASGI's door, where the body has not been read yet."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        head = RequestHead(
            scope["method"], scope["path"], headers.get(b"authorization", ""), headers.get(b"cookie", "")
        )
        declared = headers.get(b"content-length", "")
        if declared.isdecimal():
            limit_bytes = int(declared)
            # A small body needs no look into the database, so no thread either.
            is_small = limit_bytes <= ORDINARY_BYTES_MAX
            refusal = head.refusal(limit_bytes) if is_small else await _asked(head.refusal, limit_bytes)
            if refusal is not None:
                await _refuse(refusal, receive, send)
                return
        else:
            limit_bytes = await _asked(head.limit_bytes) if head.is_submission else ORDINARY_BYTES_MAX
        await self._app(scope, _counted(receive, limit_bytes), send)


async def _asked(question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Ask the database in a thread. Here is no request yet at whose end Django would see to the thread's connection."""

    def ask() -> T:
        try:
            return question(*args, **kwargs)
        finally:
            connection.close()

    return await sync_to_async(ask)()


def _counted(receive: Receive, limit_bytes: int) -> Receive:
    """Cut the connection of a client that sends more than the limit without having declared it."""
    received_bytes = 0

    async def counted() -> Message:
        nonlocal received_bytes
        message = await receive()
        if message["type"] == "http.request":
            received_bytes += len(message["body"])
            if received_bytes > limit_bytes:
                return {"type": "http.disconnect"}
        return message

    return counted


async def _refuse(refusal: Refusal, receive: Receive, send: Send) -> None:
    body = json.dumps({"detail": refusal.detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    # Most clients read the answer only when they have sent their all, and see a broken connection if it is closed
    # before. So the rest is read and dropped, up to a bound; nothing of it is kept.
    discarded_bytes = 0
    while discarded_bytes < DISCARDED_BYTES_MAX:
        message = await receive()
        if message["type"] != "http.request":
            break
        discarded_bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    await send({"type": "http.response.body", "body": b"", "more_body": False})
