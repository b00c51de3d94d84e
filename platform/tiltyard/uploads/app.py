"""Resumable uploads at the ASGI door: bodies go from the socket to the file, past Django, which would keep each twice.

A request is let in with a bearer token or with the browser's session. A session alone would let other sites upload in a
visitor's name; they cannot, because every request that changes something must carry the header Tus-Resumable, which a
browser sends across origins only after a preflight that is never answered, and because a foreign Origin is refused.

Where a connection hangs, its client comes back with a new one: that one takes the file over from the old.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.submissions.uploads import Application, Message, Receive, Scope, Send, asked, drain
from tiltyard.uploads import files, protocol, service
from tiltyard.uploads.callers import caller_of
from tiltyard.uploads.models import Upload
from tiltyard.uploads.protocol import TusError
from tiltyard.uploads.receiving import IDLE_S, append_body
from tiltyard.web.middleware import POLICY

logger = logging.getLogger(__name__)

_WAIT_FOR_OLD_S: Final = 5.0
_CHECKED_AT_ONCE: Final = 2  # complete files; reading one keeps a core and the disk busy
_CHECK_AGAIN_S: Final = 3.0  # after a check that failed for our own reasons, at the earliest
_TOUCH_EVERY: Final = 0.01  # of an upload's time to live: not a write to the database for each piece
_CHECKING: Final = "checking"
_METHODS: Final = "OPTIONS, HEAD, GET, POST, PATCH, DELETE"
_CHANGING: Final = {"POST", "PATCH", "DELETE", "HEAD"}


class ResumableUploads:
    """Answers everything below /uploads/ and passes the rest on."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._writing: dict[UUID, asyncio.Timeout] = {}
        self._finishing: dict[UUID, asyncio.Task[None]] = {}
        # Threads of their own: files that are checked must not take those with which others are received.
        self._checks = ThreadPoolExecutor(_CHECKED_AT_ONCE, thread_name_prefix="check-upload")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not f"{scope['path']}/".startswith(protocol.PREFIX):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = str(headers.get("x-http-method-override") or scope["method"]).upper()
        request = _Body(receive)
        try:
            peer = (scope.get("client") or ("",))[0]
            status, answer, body = await self._answer(method, scope["path"], headers, request, peer=peer)
        except TusError as error:
            if not request.has_ended:
                await drain(request)
            status, answer, body = error.status, dict(error.headers), {"detail": error.detail}
        await _send(send, status, answer, None if method == "HEAD" else body)

    async def _answer(
        self, method: str, path: str, headers: Mapping[str, str], receive: Receive, *, peer: str
    ) -> tuple[int, dict[str, str], dict[str, Any] | None]:
        upload_id = protocol.upload_id(path)
        if method == "OPTIONS":
            return 204, protocol.server_headers(int(settings.UPLOAD_BYTES_MAX)), None
        if method in _CHANGING and headers.get("tus-resumable") != protocol.VERSION:
            raise TusError(
                412, f"Send the header Tus-Resumable: {protocol.VERSION}.", {"tus-version": protocol.VERSION}
            )
        _check_origin(headers)
        is_new = upload_id is None and method == "POST"
        user, upload = await asked(_known, headers, peer, upload_id, creates=is_new)
        if upload is None:
            if method != "POST":
                raise TusError(405, "Create an upload with POST.", {"allow": "OPTIONS, POST"})
            return await self._create(user, headers, receive)
        if method == "PATCH":
            return await self._patch(upload, headers, receive)
        if method == "DELETE":
            await self._stop_writer(upload.pk)
            await asked(service.terminate, upload)
            return 204, {}, None
        if method == "HEAD":
            return 200, await self._head(upload), None
        if method == "POST":  # once more, after the quota allows it
            await asyncio.wait([self._finish_soon(upload.pk)])
        elif method != "GET":
            raise TusError(405, "That is not done to an upload.", {"allow": _METHODS})
        document = await asked(_document, user, upload.pk)
        if document["state"] == _CHECKING:
            self._finish_soon(upload.pk)  # unless that goes on already: the last check may have failed
        return 200, {"cache-control": "no-store"}, document

    async def _create(
        self, user: User, headers: Mapping[str, str], receive: Receive
    ) -> tuple[int, dict[str, str], dict[str, Any] | None]:
        if "upload-defer-length" in headers:
            raise TusError(400, "The length of the file must be known: send Upload-Length.")
        size_bytes = protocol.count(headers, "Upload-Length")
        target = protocol.Target.read(headers.get("upload-metadata", ""))
        upload = await asked(service.create, user, size_bytes, target, timezone.now())
        answer = protocol.upload_headers(size_bytes, 0, 0, upload.expires_at)
        if headers.get("content-type") == protocol.CONTENT_TYPE:
            answer |= await self._receive(upload, 0, headers, receive)
        return 201, answer | {"location": f"{protocol.PREFIX}{upload.pk}"}, None

    async def _head(self, upload: Upload) -> dict[str, str]:
        if upload.state == Upload.State.RECEIVING:
            # A client asks where to go on because its connection broke; what the old one still holds is written first.
            await self._stop_writer(upload.pk)
        elif upload.state in {Upload.State.REFUSED, Upload.State.EXPIRED}:
            raise TusError(410, upload.detail)
        offset_bytes = files.offset_of(upload.pk)
        if offset_bytes is None and upload.state != Upload.State.ACCEPTED:
            raise TusError(410, "The file is gone. Upload it again.")
        offset_bytes = upload.size_bytes if upload.state == Upload.State.ACCEPTED else offset_bytes or 0
        if offset_bytes == upload.size_bytes:
            self._finish_soon(upload.pk)
        is_accepted = upload.state == Upload.State.ACCEPTED
        checked_bytes = offset_bytes if is_accepted else files.checked_of(upload.pk)
        return protocol.upload_headers(upload.size_bytes, offset_bytes, checked_bytes, upload.expires_at)

    async def _patch(
        self, upload: Upload, headers: Mapping[str, str], receive: Receive
    ) -> tuple[int, dict[str, str], dict[str, Any] | None]:
        if headers.get("content-type") != protocol.CONTENT_TYPE:
            raise TusError(415, f"Send the bytes as {protocol.CONTENT_TYPE}.")
        if upload.state != Upload.State.RECEIVING:
            raise TusError(410, upload.detail or "The upload is complete.")
        return 204, await self._receive(upload, protocol.count(headers, "Upload-Offset"), headers, receive), None

    async def _receive(
        self, upload: Upload, offset_bytes: int, headers: Mapping[str, str], receive: Receive
    ) -> dict[str, str]:
        """Append the request's body; gives the answer's headers."""
        promised = protocol.Promised.read(headers)
        await self._stop_writer(upload.pk)
        with await _locked(upload.pk) as file, contextlib.ExitStack() as stack:
            stack.callback(self._writing.pop, upload.pk, None)
            if file.is_sealed:
                raise TusError(410, "The upload is complete.")
            if file.offset_bytes != offset_bytes:
                raise TusError(
                    409,
                    f"The upload stands at byte {file.offset_bytes}, not {offset_bytes}. Ask with HEAD where to go on.",
                    {"upload-offset": str(file.offset_bytes)},
                )
            try:
                async with asyncio.timeout(IDLE_S) as patience:
                    self._writing[upload.pk] = patience
                    await append_body(file, upload.size_bytes, promised, receive, patience)
            except TimeoutError:
                raise TusError(408, "Nothing came for too long, or another connection took over.") from None
            except OSError as error:
                if not service.is_disk_full(error):
                    raise
                logger.error("the disk of uploads is full")
                raise TusError(service.INSUFFICIENT_STORAGE, "The server's disk is full. Try later.") from error
            now = timezone.now()
            expires_at = Upload.expiry(now)
            if expires_at - upload.expires_at > _TOUCH_EVERY * (expires_at - now):
                upload.expires_at = expires_at
                await asked(service.touch, upload)
            reached, checked = file.offset_bytes, file.checked_bytes
        if reached == upload.size_bytes:
            self._finish_soon(upload.pk)
        return protocol.upload_headers(upload.size_bytes, reached, checked, upload.expires_at)

    async def _stop_writer(self, upload_id: UUID) -> None:
        """End the connection that still holds the file in this process, and wait until it has let go."""
        patience = self._writing.get(upload_id)
        if patience is None:
            return
        with contextlib.suppress(RuntimeError):  # it has just ended by itself
            patience.reschedule(asyncio.get_running_loop().time())
        deadline = asyncio.get_running_loop().time() + _WAIT_FOR_OLD_S
        while self._writing.get(upload_id) is patience and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)

    def _finish_soon(self, upload_id: UUID) -> asyncio.Task[None]:
        """Check the complete file beside the answer, which is not kept waiting."""
        task = self._finishing.get(upload_id)
        if task is None:
            task = self._finishing[upload_id] = asyncio.create_task(self._finish(upload_id))
            task.add_done_callback(lambda _: self._finishing.pop(upload_id))
        return task

    async def _finish(self, upload_id: UUID) -> None:
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._checks, _closing, service.finish, upload_id):
            await asyncio.sleep(_CHECK_AGAIN_S)


class _Body:
    """A request's body, of which one can ask whether all of it was read: to read on would wait for the next request."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.has_ended = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.has_ended = not message.get("more_body", False)
        return message


async def _locked(upload_id: UUID) -> files.Growing:
    try:
        file = files.lock(upload_id)
    except FileNotFoundError:
        raise TusError(410, "The file is gone. Upload it again.") from None
    if file is None:
        raise TusError(423, "Another connection is sending this file. Try again in a minute.", {"retry-after": "5"})
    return file


def _check_origin(headers: Mapping[str, str]) -> None:
    origin = headers.get("origin")
    if origin and urlsplit(origin).netloc not in {headers.get("host"), urlsplit(settings.SITE_URL).netloc}:
        raise TusError(403, "Uploads come from this site's own pages, or with a token.")


def _known(
    headers: Mapping[str, str], peer: str, upload_id: UUID | None, *, creates: bool
) -> tuple[User, Upload | None]:
    """Who calls, and their upload if the path names one."""
    user = caller_of(headers, peer, creates=creates)
    return user, service.find(user, upload_id) if upload_id is not None else None


def _document(user: User, upload_id: UUID) -> dict[str, Any]:
    """An upload for programs: `state` is `checking` while a complete file is looked at."""
    upload = service.find(user, upload_id)
    offset_bytes = files.offset_of(upload.pk)
    is_complete = offset_bytes == upload.size_bytes
    run = upload.submission.runs.first() if upload.submission else None
    return {
        "state": _CHECKING if upload.state == Upload.State.RECEIVING and is_complete else upload.state,
        "detail": upload.detail,
        "offset_bytes": upload.size_bytes if upload.submission else offset_bytes or 0,
        "size_bytes": upload.size_bytes,
        "expires_at": upload.expires_at.isoformat(),
        "submission_id": str(upload.submission_id) if upload.submission_id else None,
        "run_id": str(run.pk) if run else None,
        "url": f"{settings.SITE_URL}{run.get_absolute_url()}" if run else None,
        "path": run.get_absolute_url() if run else None,
    }


def _closing(act: Any, *args: Any) -> bool:
    """Run in a thread of its own, which leaves no connection to the database behind; a failure is logged.

    Gives whether it went well.
    """
    from django.db import connection  # noqa: PLC0415

    try:
        act(*args)
    except Exception:
        logger.exception("an upload could not be finished")
        return False
    else:
        return True
    finally:
        connection.close()


async def _send(send: Send, status: int, headers: Mapping[str, str], body: dict[str, Any] | None) -> None:
    content = json.dumps(body).encode() if body is not None else b""
    fields = {
        "tus-resumable": protocol.VERSION,
        "content-length": str(len(content)),
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        **({"content-type": "application/json"} if content else {}),
        **headers,
    }
    if status == 204:
        del fields["content-length"]
    start = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": content})
