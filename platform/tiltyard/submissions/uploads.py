"""Refuse bodies that are too large before they are read: only a participant who hands something in may send much.

Django reads and parses a whole body before a view can look at it. Two doors therefore stand in front: ASGI servers pass
through `UploadSizeLimit`, which also counts what really arrives, and every other request through the middleware. Files
themselves go to disk in chunks (FILE_UPLOAD_HANDLERS), never through memory.

A browser that loads a page, as it does without a script, is answered with one; programs and scripts with JSON.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, ParamSpec, Self, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, parse_cookie
from django.template.loader import render_to_string
from django.utils import timezone

from tiltyard.accounts.models import ApiToken
from tiltyard.web.middleware import POLICY

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


def _form_too_large(size_bytes: int) -> str:
    if size_bytes <= int(settings.UPLOAD_BYTES_MAX):
        return (
            f"The upload has {human_size(size_bytes)}; more than {human_size(form_bytes_max())} must come in pieces, "
            "as the page with JavaScript and the command `tiltyard submit` send them."
        )
    return too_large_message(size_bytes, int(settings.UPLOAD_BYTES_MAX))


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
    accept: str
    is_htmx: bool

    @classmethod
    def read(cls, method: str, path: str, headers: Mapping[str, str]) -> Self:
        """From headers with names in lower case, or in any if the mapping does not mind."""
        authorization, cookie, accept = (headers.get(name, "") for name in ("authorization", "cookie", "accept"))
        return cls(method, path, authorization, cookie, accept, is_htmx="hx-request" in headers)

    @property
    def wants_page(self) -> bool:
        """Whether a person will look at the answer itself: `*/*` is what programs say."""
        kinds = {kind.partition(";")[0].strip().lower() for kind in self.accept.split(",")}
        return "text/html" in kinds and not self.is_htmx and not self.path.startswith("/api/")

    @property
    def is_submission(self) -> bool:
        return self.method == "POST" and _SUBMIT_PATH.fullmatch(self.path) is not None

    def refusal(self, size_bytes: int) -> Refusal | None:
        """Why a body of this size is not accepted; asks the database only about large ones."""
        if self.is_submission and size_bytes > _body_bytes_max():
            return Refusal(TOO_LARGE, _form_too_large(size_bytes))
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
        return _body_bytes_max() if self.is_submission and self._is_signed_in() else ORDINARY_BYTES_MAX

    def _is_signed_in(self) -> bool:
        scheme, _, token = self.authorization.partition(" ")
        if scheme.lower() == "bearer":
            return ApiToken.objects.valid(token.strip(), timezone.now()).exists()
        session_key = parse_cookie(self.cookie).get(settings.SESSION_COOKIE_NAME)
        return SESSION_KEY in import_module(settings.SESSION_ENGINE).SessionStore(session_key)


def form_bytes_max() -> int:
    """The largest file that may come in one request; larger ones come in pieces (tiltyard.uploads)."""
    return min(int(settings.UPLOAD_BYTES_MAX), int(settings.FORM_UPLOAD_BYTES_MAX))


def _body_bytes_max() -> int:
    return form_bytes_max() + FORM_OVERHEAD_BYTES


def upload_size_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Refuse a request whose Content-Length is over its limit."""

    def middleware(request: HttpRequest) -> HttpResponse:
        declared = request.META.get("CONTENT_LENGTH") or "0"
        head = RequestHead.read(request.method or "", request.path, request.headers)
        refusal = head.refusal(int(declared)) if declared.isdecimal() else None
        if refusal is not None:
            kind, body = _answer(refusal, head)
            return HttpResponse(body, content_type=kind, status=refusal.status)
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
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        head = RequestHead.read(scope["method"], scope["path"], headers)
        declared = headers.get("content-length", "")
        if declared.isdecimal():
            limit_bytes = int(declared)
            # A small body needs no look into the database, so no thread either.
            is_small = limit_bytes <= ORDINARY_BYTES_MAX
            refusal = head.refusal(limit_bytes) if is_small else await asked(head.refusal, limit_bytes)
            if refusal is not None:
                await _refuse(refusal, head, receive, send)
                return
        else:
            limit_bytes = await asked(head.limit_bytes) if head.is_submission else ORDINARY_BYTES_MAX
        await self._app(scope, _counted(receive, limit_bytes), send)


async def asked(question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Ask the database in a thread. Here is no request yet with which Django would see to the thread's connection."""

    def ask() -> T:
        close_old_connections()
        try:
            return question(*args, **kwargs)
        finally:
            close_old_connections()

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


def _answer(refusal: Refusal, head: RequestHead) -> tuple[str, bytes]:
    """The content type and the body of a refusal."""
    if not head.wants_page:
        return "application/json", json.dumps({"detail": refusal.detail}).encode()
    context = {"refusal": refusal, "page": head.path if head.is_submission else ""}
    return "text/html; charset=utf-8", render_to_string("upload_refused.html", context).encode()


async def _refuse(refusal: Refusal, head: RequestHead, receive: Receive, send: Send) -> None:
    kind, body = await sync_to_async(_answer)(refusal, head)
    # Django's middleware, which says these for every other page, is not asked here.
    headers = {
        "content-type": kind,
        "content-length": str(len(body)),
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",
    }
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await drain(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def drain(receive: Receive) -> None:
    """Read the rest of a request and drop it, up to a bound.

    Most clients read the answer only when they have sent their all, and see a broken connection if it is closed before.
    """
    discarded_bytes = 0
    while discarded_bytes < DISCARDED_BYTES_MAX:
        message = await receive()
        if message["type"] != "http.request":
            break
        discarded_bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
