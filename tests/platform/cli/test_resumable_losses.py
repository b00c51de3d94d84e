"""`tiltyard submit` beside a server whose disk has lost what it had, or has too much: it ends, and in words."""

import base64
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tiltyard.cli import resumable, upload_memory
from tiltyard.cli.errors import CliError
from tiltyard.cli.resumable import ResumableUpload

SIZE = 3 << 20
PLACE = f"/uploads/{uuid.UUID(int=7)}"
METADATA = {"competition": "demo", "filename": "entry.tar"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resumable, "PIECE_BYTES", 1 << 20)
    monkeypatch.setattr(resumable.time, "sleep", lambda _: None)
    monkeypatch.setattr(upload_memory, "cache_dir", lambda: tmp_path)


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    path = tmp_path / "entry.tar"
    path.write_bytes(bytes(SIZE))
    return path


class Server:
    """Takes every piece; what it says of the complete file is the test's."""

    def __init__(self, document: Callable[["Server"], dict[str, object]]) -> None:
        self.offset = 0
        self.asked = 0
        self.pieces: list[int] = []
        self.announced = ""
        self._document = document

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.announced = request.headers["upload-metadata"]
            return httpx.Response(201, headers={"location": PLACE})
        if request.method == "GET":
            self.asked += 1
            return httpx.Response(200, json=self._document(self))
        if request.method == "PATCH":
            self.pieces.append(int(request.headers["upload-offset"]))
            self.offset += len(request.read())
        standing = {"upload-offset": str(self.offset), "upload-checked-offset": str(min(self.offset, SIZE))}
        return httpx.Response(200 if request.method == "HEAD" else 204, headers=standing | {"upload-length": str(SIZE)})

    def send(self, path: Path, said: list[str], *, sha256: str = "") -> dict[str, object]:
        def refusal(response: httpx.Response, _what: str) -> CliError:
            return CliError(str(response.status_code))

        with httpx.Client(transport=httpx.MockTransport(self.answer)) as http:
            upload = ResumableUpload(http, "http://127.0.0.1", refusal, said.append)
            return upload.send(path, METADATA, lambda _: None, sha256=sha256)


def test_what_the_server_has_lost_is_sent_again(entry: Path) -> None:
    def document(server: Server) -> dict[str, object]:
        if server.asked == 1:  # a power cut
            server.offset = 1 << 20
        return {"state": "accepted" if server.offset == SIZE else "receiving", "offset_bytes": server.offset}

    server, said = Server(document), list[str]()
    assert server.send(entry, said)["state"] == "accepted"
    assert server.pieces == [0, 1 << 20, 2 << 20, 1 << 20, 2 << 20]
    assert said[0].startswith("The server has lost a part of the file.")


def test_a_refusal_that_comes_late_says_why(entry: Path) -> None:
    """Between its word that the file is refused and the file's removal."""

    def document(server: Server) -> dict[str, object]:
        if server.asked == 1:
            return {"state": "receiving", "offset_bytes": 0}
        return {"state": "refused", "detail": "It is no archive."}

    with pytest.raises(CliError, match="It is no archive"):
        Server(document).send(entry, [])


def test_a_server_that_loses_it_again_and_again_is_given_up(entry: Path) -> None:
    def document(server: Server) -> dict[str, object]:
        server.offset = 1 << 20
        return {"state": "receiving", "offset_bytes": server.offset}

    server = Server(document)
    with pytest.raises(CliError, match="give the same command again"):
        server.send(entry, [])
    assert server.asked <= 2 * (resumable._ATTEMPTS_MAX + 1)


def test_a_server_that_has_more_than_the_file_is_an_error(entry: Path) -> None:
    def document(server: Server) -> dict[str, object]:
        server.offset = SIZE + 1
        return {"state": "receiving", "offset_bytes": server.offset}

    with pytest.raises(CliError, match="more than the file"):
        Server(document).send(entry, [])
    server = Server(lambda _: {"state": "accepted"})
    server.offset = SIZE + 1  # so the next call finds it, and begins another
    said: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            server.offset = 0
        return Server.answer(server, request)

    server.answer = answer  # type: ignore[method-assign]
    assert server.send(entry, said)["state"] == "accepted"
    assert server.pieces == [0, 1 << 20, 2 << 20]


def test_a_hash_that_is_known_is_announced(entry: Path) -> None:
    """So that the server holds the whole file to it."""
    for sha256 in ("", "0" * 64):
        server = Server(lambda _: {"state": "accepted"})
        server.send(entry, [], sha256=sha256)
        pairs = dict(pair.split(" ") for pair in server.announced.split(","))
        assert base64.b64decode(pairs.get("sha256", "")).decode() == sha256
        assert base64.b64decode(pairs["competition"]).decode() == "demo"
