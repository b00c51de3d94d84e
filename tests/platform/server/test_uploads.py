"""Requests that are too large are refused before their body is read, through both doors."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django.fixtures import Settings
from web_rows import Site, make_site

from tiltyard.accounts.models import ApiToken
from tiltyard.submissions.orphans import remove_orphans
from tiltyard.submissions.uploads import FORM_OVERHEAD_BYTES, UploadSizeLimit, human_size, too_large_message

LIMIT = 1000
SUBMIT = "/api/v1/competitions/any/submissions"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def small_limit(settings: Settings) -> None:
    settings.UPLOAD_BYTES_MAX = LIMIT


class Exchange:
    """One ASGI request with a body in chunks, and what came of it."""

    def __init__(
        self, chunks: list[bytes], declared: int | None, *, path: str = SUBMIT, authorization: str = "", **more: str
    ) -> None:
        self._chunks = list(chunks)
        named = {"authorization": authorization} | {name.replace("_", "-"): value for name, value in more.items()}
        headers = [(name.encode(), value.encode()) for name, value in named.items() if value]
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "headers": headers}
        if declared is not None:
            self.scope["headers"].append((b"content-length", str(declared).encode()))
        self.sent: list[Mapping[str, Any]] = []
        self.read_by_app: list[Mapping[str, Any]] = []

    async def receive(self) -> Mapping[str, Any]:
        if not self._chunks:
            return {"type": "http.disconnect"}
        chunk = self._chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self._chunks)}

    async def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)

    async def app(self, _scope: dict[str, Any], receive: Any, _send: Any) -> None:
        while True:
            message = await receive()
            self.read_by_app.append(message)
            if not message.get("more_body"):
                return

    def run(self) -> "Exchange":
        asyncio.run(UploadSizeLimit(self.app)(self.scope, self.receive, self.send))
        return self

    @property
    def unread(self) -> int:
        return len(self._chunks)


def test_asgi_lets_a_small_body_through() -> None:
    exchange = Exchange([b"a" * 500, b"b" * 500], 1000).run()
    assert [message["body"] for message in exchange.read_by_app] == [b"a" * 500, b"b" * 500]
    assert exchange.sent == []


def test_asgi_answers_413_and_drops_the_rest() -> None:
    declared = 2 << 30
    exchange = Exchange([b"x" * 100] * 5, declared).run()
    assert exchange.read_by_app == []
    start, body, end = exchange.sent
    assert start["status"] == 413
    assert json.loads(body["body"])["detail"] == too_large_message(declared, LIMIT)
    assert (body["more_body"], end["more_body"], exchange.unread) == (True, False, 0)


PAGE = "/competitions/any/submit/"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_asgi_answers_a_browser_with_a_page() -> None:
    exchange = Exchange([b"x" * 100] * 5, 2 << 30, path=PAGE, accept=BROWSER).run()
    start, body, _end = exchange.sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert (start["status"], headers["content-type"]) == (413, "text/html; charset=utf-8")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert int(headers["content-length"]) == len(body["body"])
    page = body["body"].decode()
    assert "The upload is too large" in page
    assert escape(too_large_message(2 << 30, LIMIT)) in page
    assert f'href="{PAGE}"' in page
    assert exchange.unread == 0


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (PAGE, {"accept": "application/json"}),  # the page's own script
        (PAGE, {"accept": BROWSER, "hx_request": "true"}),
        (PAGE, {"accept": "*/*"}),
        (PAGE, {}),
        (SUBMIT, {"accept": BROWSER}),
    ],
    ids=["script", "htmx", "curl", "nothing said", "api"],
)
def test_asgi_answers_programs_with_json(path: str, headers: dict[str, str]) -> None:
    start, body, _end = Exchange([b"x"], 2 << 30, path=path, **headers).run().sent
    assert (start["status"], dict(start["headers"])[b"content-type"]) == (413, b"application/json")
    assert json.loads(body["body"])["detail"] == too_large_message(2 << 30, LIMIT)


@pytest.mark.django_db(transaction=True)
def test_a_browser_that_is_not_signed_in_is_led_to_the_door(settings: Settings) -> None:
    settings.UPLOAD_BYTES_MAX = 1 << 30
    start, body, _end = Exchange([b"x"], 2 * MIB, path=PAGE, accept=BROWSER).run().sent
    assert start["status"] == 401
    assert f'href="/accounts/login/?next={PAGE}"' in body["body"].decode()


def test_asgi_cuts_off_who_sends_more_than_was_declared() -> None:
    exchange = Exchange([b"x" * 400] * 5, 500).run()
    assert [message["type"] for message in exchange.read_by_app] == ["http.request", "http.disconnect"]


@pytest.mark.django_db(transaction=True)
def test_a_stranger_may_not_upload_much(settings: Settings) -> None:
    settings.UPLOAD_BYTES_MAX = 1 << 30
    for exchange in (Exchange([b"x"], 2 * MIB), Exchange([b"x"], 2 * MIB, authorization="Bearer ty_forged")):
        start, body, _end = exchange.run().sent
        assert (start["status"], exchange.read_by_app) == (401, [])
        assert json.loads(body["body"])["detail"].startswith("Sign in")
    undeclared = Exchange([b"x" * MIB, b"x"], None).run()
    assert [message["type"] for message in undeclared.read_by_app] == ["http.request", "http.disconnect"]


@pytest.mark.django_db(transaction=True)
def test_a_participant_may_upload_much_but_only_when_submitting(settings: Settings, now: datetime) -> None:
    settings.UPLOAD_BYTES_MAX = 1 << 30
    token = "Bearer " + ApiToken.issue(make_site(now).owner, "laptop")[1]
    for declared in (2 * MIB, None):
        upload = Exchange([b"x" * MIB] * 2, declared, authorization=token).run()
        assert [message["type"] for message in upload.read_by_app] == ["http.request"] * 2
    start, _body, _end = Exchange([b"x"], 2 * MIB, path="/accounts/login/", authorization=token).run().sent
    assert start["status"] == 413


def test_the_middleware_knows_a_session(site: Site, settings: Settings) -> None:
    settings.UPLOAD_BYTES_MAX = 1 << 30
    body = b"x" * (MIB + 1)
    client = Client()
    client.cookies["sessionid"] = "forged"
    assert client.post("/competitions/none/submit/", body, content_type="text/plain").status_code == 401
    client.force_login(site.owner)
    assert client.post("/competitions/none/submit/", body, content_type="text/plain").status_code == 404
    assert client.post("/accounts/login/", body, content_type="text/plain").status_code == 413


def test_asgi_leaves_other_scopes_alone() -> None:
    seen = []

    async def app(scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    exchange = Exchange([], None)
    asyncio.run(UploadSizeLimit(app)({"type": "lifespan"}, exchange.receive, exchange.send))
    assert seen == ["lifespan"]


def test_the_middleware_answers_413(db: None) -> None:
    body = b"x" * (LIMIT + FORM_OVERHEAD_BYTES + 1)
    response = Client().post("/api/v1/competitions/any/submissions", body, content_type="application/octet-stream")
    assert response.status_code == 413
    assert "Leave out what the server does not need" in response.json()["detail"]


def test_the_middleware_answers_a_browser_with_a_page(db: None) -> None:
    body = b"x" * (LIMIT + FORM_OVERHEAD_BYTES + 1)
    post = partial(Client().post, "/competitions/any/submit/", body, content_type="text/plain")
    response = post(headers={"accept": BROWSER})
    assert (response.status_code, response["Content-Type"]) == (413, "text/html; charset=utf-8")
    assert "which is more than the 1000 bytes allowed" in response.content.decode()
    assert "Content-Security-Policy" in response
    assert post(headers={"accept": BROWSER, "hx-request": "true"}).json()["detail"]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 << 19, "1.5 MiB"), (2 << 30, "2.0 GiB")],
)
def test_sizes_for_people(size_bytes: int, text: str) -> None:
    assert human_size(size_bytes) == text


def test_broken_off_uploads_are_removed_after_a_day(settings: Settings) -> None:
    artefacts = Path(settings.ARTEFACT_DIR) / "ab"
    artefacts.mkdir()
    upload, part = Path(settings.UPLOAD_DIR) / "tmp1.upload", artefacts / ".1234.part"
    fresh, kept = Path(settings.UPLOAD_DIR) / "tmp2.upload", artefacts / ("ab" * 32)
    for path in (upload, part, fresh, kept):
        path.write_bytes(b"x")
    for path in (upload, part, kept):
        os.utime(path, (0, time.time() - 86_500))
    assert remove_orphans() == 2
    assert [path.exists() for path in (upload, part, fresh, kept)] == [False, False, True, True]
