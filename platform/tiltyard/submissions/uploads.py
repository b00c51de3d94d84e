"""Refuse files that are too large before their body is read.

Django reads and parses a whole body before a view can look at it. Two doors therefore stand in front: ASGI servers pass
through `UploadSizeLimit`, which also counts what really arrives, and every other request through the middleware. Files
themselves go to disk in chunks (FILE_UPLOAD_HANDLERS), never through memory.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

Message = Mapping[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# What a multipart form adds around its file: boundaries, headers, the other fields.
FORM_OVERHEAD_BYTES: Final = 64 * 1024
DISCARDED_BYTES_MAX: Final = 8 << 30
TOO_LARGE: Final = 413


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


def is_oversized(content_length: int) -> bool:
    return content_length > int(settings.UPLOAD_BYTES_MAX) + FORM_OVERHEAD_BYTES


def upload_size_middleware(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer 413 to a request whose Content-Length is over the site's limit."""

    def middleware(request: HttpRequest) -> HttpResponse:
        declared = request.META.get("CONTENT_LENGTH") or "0"
        if declared.isdigit() and is_oversized(int(declared)):
            detail = too_large_message(int(declared), int(settings.UPLOAD_BYTES_MAX))
            return JsonResponse({"detail": detail}, status=TOO_LARGE)
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
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and is_oversized(int(declared)):
            await _refuse(int(declared), receive, send)
            return
        await self._app(scope, _counted(receive), send)


def _counted(receive: Receive) -> Receive:
    """Cut the connection of a client that sends more than the limit without having declared it."""
    received_bytes = 0

    async def counted() -> Message:
        nonlocal received_bytes
        message = await receive()
        if message["type"] == "http.request":
            received_bytes += len(message["body"])
            if is_oversized(received_bytes):
                return {"type": "http.disconnect"}
        return message

    return counted


async def _refuse(size_bytes: int, receive: Receive, send: Send) -> None:
    body = json.dumps({"detail": too_large_message(size_bytes, int(settings.UPLOAD_BYTES_MAX))}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": TOO_LARGE, "headers": headers})
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
