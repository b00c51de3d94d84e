"""Uploads in pieces to a real server process: any tus client, broken connections, killed servers, hostile words."""

import base64
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import xxhash
from tusclient import client as tus
from upload_server import OWNER_TOKEN, SLUG, STRANGER_TOKEN, UploadServer, running
from uploads_for_tests import context_archive

pytestmark = [pytest.mark.slow]

MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = TUS | {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UploadServer]:
    with running(
        tmp_path_factory.mktemp("uploads"), TILTYARD_UNFINISHED_UPLOADS_MAX="50", TILTYARD_REFUSED_UPLOADS_MAX="0"
    ) as server:
        yield server


@pytest.fixture
def owner(server: UploadServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {OWNER_TOKEN}"}, timeout=30) as client:
        yield client


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Some MiB that do not compress."""
    return context_archive(
        tmp_path / "entry.tar.gz", files={"weights.txt": base64.b64encode(os.urandom(3 * MIB)).decode()}
    )


def _metadata(**pairs: str) -> str:
    full = {"competition": SLUG, "filename": "entry.tar.gz"} | pairs
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in full.items() if value)


def _create(client: httpx.Client, size: int, **metadata: str) -> str:
    headers = TUS | {"Upload-Length": str(size), "Upload-Metadata": _metadata(**metadata)}
    answer = client.post("/uploads/", headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def _patch(client: httpx.Client, place: str, offset: int, content: bytes, **more: str) -> httpx.Response:
    headers = BYTES | {"Upload-Offset": str(offset)} | {key.replace("_", "-"): value for key, value in more.items()}
    return client.patch(place, headers=headers, content=content)


def _offset(client: httpx.Client, place: str) -> int:
    answer = client.head(place, headers=TUS)
    assert answer.status_code == 200
    return int(answer.headers["Upload-Offset"])


def _end(client: httpx.Client, place: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        found: dict[str, Any] = client.get(place).json()
        if found["state"] not in {"checking", "receiving"} or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_a_file_in_pieces_becomes_a_submission(owner: httpx.Client, archive: Path) -> None:
    content = archive.read_bytes()
    place = _create(owner, len(content), sha256=hashlib.sha256(content).hexdigest(), track="cpu")
    for start in range(0, len(content), MIB):
        answer = _patch(owner, place, start, content[start : start + MIB])
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(min(start + MIB, len(content))))
        assert "Upload-Expires" in answer.headers
    found = _end(owner, place)
    assert (found["state"], found["detail"]) == ("accepted", "")
    run = owner.get(f"/api/v1/runs/{found['run_id']}").json()
    assert run["state"] == "queued"
    assert owner.get("/api/v1/submissions").json()[0]["filename"] == "entry.tar.gz"


def test_a_stock_client_uploads_and_resumes(server: UploadServer, owner: httpx.Client, archive: Path) -> None:
    client = tus.TusClient(f"{server.url}/uploads/", headers={"Authorization": f"Bearer {OWNER_TOKEN}"})
    arguments = {
        "chunk_size": MIB,
        "metadata": {"competition": SLUG, "filename": "entry.tar.gz"},
        "upload_checksum": True,
    }
    with archive.open("rb") as stream:
        first = client.uploader(file_stream=stream, **arguments)
        first.upload_chunk()
        second = client.uploader(file_stream=stream, url=first.url, **arguments)
        assert second.offset == MIB
        second.upload()
    assert _end(owner, str(first.url).removeprefix(server.url))["state"] == "accepted"


def test_what_arrived_before_the_connection_broke_counts(
    server: UploadServer, owner: httpx.Client, archive: Path
) -> None:
    content = archive.read_bytes()
    place = _create(owner, len(content))
    offset = 0
    for share in (0.3, 0.6):
        deadline = time.monotonic() + 60
        reached = offset
        # HEAD ends the broken connection's hold, which on a busy machine may be before its first byte was read.
        while reached == offset and time.monotonic() < deadline:
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(_raw_patch(place, offset, len(content) - offset))
                connection.sendall(content[offset : int(len(content) * share)])
            reached = _offset(owner, place)
        assert offset < reached <= int(len(content) * share)
        offset = reached
    assert _patch(owner, place, offset, content[offset:]).status_code == 204
    assert _end(owner, place)["state"] == "accepted"


def test_a_hanging_connection_is_taken_over(server: UploadServer, owner: httpx.Client, archive: Path) -> None:
    content = archive.read_bytes()
    place = _create(owner, len(content))
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(_raw_patch(place, 0, len(content)) + content[:MIB])
        reached = 0
        while reached < MIB:  # each HEAD ends the connection's hold, and what it had brought is kept
            reached = _offset(owner, place)
            assert reached in {0, MIB} or reached < MIB
            if reached < MIB:
                answer = _patch(owner, place, reached, content[reached:MIB])
                assert answer.status_code in {204, 409}
        assert _patch(owner, place, MIB, content[MIB:]).status_code == 204
    assert _end(owner, place)["state"] == "accepted"


def test_a_killed_server_loses_nothing_that_arrived(tmp_path: Path, archive: Path) -> None:
    content = archive.read_bytes()
    with (
        running(tmp_path) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {OWNER_TOKEN}"}, timeout=30) as client,
    ):
        place = _create(client, len(content), sha256=hashlib.sha256(content).hexdigest())
        offset = 0
        for share in (0.4, 0.8):
            end = int(len(content) * share)
            assert _patch(client, place, offset, content[offset:end]).status_code == 204
            server.kill()
            server.start()
            offset = _offset(client, place)
            assert offset == end
        assert _patch(client, place, offset, content[offset:]).status_code == 204
        assert _end(client, place)["state"] == "accepted"
        _wait_until_empty(tmp_path / "uploads" / "resumable")


def test_a_server_killed_before_the_check_does_it_when_it_starts(tmp_path: Path, archive: Path) -> None:
    content = archive.read_bytes()
    with (
        running(tmp_path) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {OWNER_TOKEN}"}, timeout=30) as client,
    ):
        place = _create(client, len(content))
        assert _patch(client, place, 0, content[:-1]).status_code == 204
        server.kill()
        part = tmp_path / "uploads" / "resumable" / f"{place.rsplit('/', 1)[1]}.part"
        with part.open("ab") as file:  # the last byte reached the disk, and nothing else happened
            file.write(content[-1:])
        server.start()
        assert _end(client, place)["state"] == "accepted"
        assert len(client.get("/api/v1/submissions").json()) == 1
        _wait_until_empty(part.parent)
        # A server killed after its answer and before it removed the file.
        server.kill()
        part.write_bytes(b"left over")
        os.utime(part, (0, 0))
        server.start()
        _wait_until_empty(part.parent)


def test_a_damaged_chunk_is_dropped_and_can_be_sent_again(owner: httpx.Client) -> None:
    place = _create(owner, 1000)
    content = os.urandom(600)
    good = "sha1 " + base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
    assert _patch(owner, place, 0, b"x" + content[1:], Upload_Checksum=good).status_code == 460
    assert _offset(owner, place) == 0
    assert _patch(owner, place, 0, content, Upload_Checksum=good).status_code == 204
    assert _offset(owner, place) == 600
    assert (
        "use one of sha1, sha256, sha512, crc32"
        in _patch(owner, place, 600, b"x", Upload_Checksum="md5 AAAA").json()["detail"]
    )


def test_a_piece_with_a_digest_is_kept_as_far_as_it_came(
    server: UploadServer, owner: httpx.Client, archive: Path
) -> None:
    content = archive.read_bytes()

    def digest(start: int, end: int) -> str:
        words = base64.b64encode(xxhash.xxh3_128(content[start:end]).digest()).decode()
        return f"xxh3-128=:{words}:;from={start}"

    place = _create(owner, len(content))
    assert _patch(owner, place, 0, content[:MIB], Upload_Piece_Digest=digest(0, MIB)).status_code == 204
    reached = MIB
    deadline = time.monotonic() + 60
    while reached == MIB and time.monotonic() < deadline:  # HEAD may end the connection before a byte was read
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = _raw_patch(place, MIB, MIB).replace(
                b"\r\n\r\n", f"\r\nUpload-Piece-Digest: {digest(MIB, 2 * MIB)}".encode()
            )
            connection.sendall(head + b"\r\n\r\n" + content[MIB : MIB + MIB // 2])
        reached = _offset(owner, place)
    assert MIB < reached <= MIB + MIB // 2
    # The rest arrives damaged: what was right by its hash stays, and the half piece before it goes as well.
    damaged = b"x" * (2 * MIB - reached)
    assert _patch(owner, place, reached, damaged, Upload_Piece_Digest=digest(MIB, 2 * MIB)).status_code == 460
    assert _offset(owner, place) == MIB
    # Who counts from elsewhere is told from where: nothing is left out between two pieces.
    answer = _patch(owner, place, MIB, content[MIB:], Upload_Piece_Digest=digest(0, len(content)))
    assert (answer.status_code, answer.headers["upload-checked-offset"]) == (409, str(MIB))
    rest = digest(MIB, len(content))
    assert _patch(owner, place, MIB, content[MIB:], Upload_Piece_Digest=rest).status_code == 204
    assert _end(owner, place)["state"] == "accepted"
    other = _create(owner, 10)
    whole = "A" * 22 + "=="
    for wrong in (
        "xxh3-128=:AAAA:;from=0",
        f"sha-256=:{whole}:;from=0",
        f"xxh3-128=:{whole}:",
        f"xxh3-128=:{whole}:;from=-1",
    ):
        answer = _patch(owner, other, 0, b"x", Upload_Piece_Digest=wrong)
        assert (answer.status_code, "xxh3-128=:BASE64:" in answer.text) == (400, True)


def test_a_file_that_is_not_the_announced_one_is_refused(owner: httpx.Client, archive: Path) -> None:
    content = archive.read_bytes()
    place = _create(owner, len(content), sha256="0" * 64)
    _patch(owner, place, 0, content)
    found = _end(owner, place)
    assert found["state"] == "refused"
    assert "not the one that was announced" in found["detail"]
    assert owner.head(place, headers=TUS).status_code == 410


def test_a_file_that_cannot_become_a_submission_says_why(owner: httpx.Client) -> None:
    place = _create(owner, 1000)
    _patch(owner, place, 0, b"x" * 1000)
    found = _end(owner, place)
    assert found["state"] == "refused"
    assert "archive" in found["detail"]


def test_a_check_that_failed_is_done_again_for_who_asks(
    server: UploadServer, owner: httpx.Client, archive: Path
) -> None:
    content = archive.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    in_the_way = server.data_dir / "artefacts" / sha256[:2] / sha256
    in_the_way.mkdir(parents=True)
    log = server.data_dir / "server.log"
    failures = log.read_text().count("could not be finished")
    place = _create(owner, len(content))
    assert _patch(owner, place, 0, content).status_code == 204
    deadline = time.monotonic() + 60
    while log.read_text().count("could not be finished") == failures and time.monotonic() < deadline:
        time.sleep(0.05)
    assert owner.get(place).json()["state"] == "checking"
    in_the_way.rmdir()
    assert _end(owner, place)["state"] == "accepted"
    assert in_the_way.read_bytes() == content


def test_an_upload_belongs_to_its_owner(server: UploadServer, owner: httpx.Client) -> None:
    place = _create(owner, 1000)
    with httpx.Client(base_url=server.url) as client:
        for headers in ({}, {"Authorization": f"Bearer {STRANGER_TOKEN}"}, {"Authorization": "Bearer ty_forged"}):
            status = 404 if STRANGER_TOKEN in str(headers) else 401
            assert client.head(place, headers=TUS | headers).status_code == status
            assert client.get(place, headers=headers).status_code == status
            assert client.delete(place, headers=TUS | headers).status_code == status
            assert _patch(client, place, 0, b"x", **headers).status_code == status
            assert client.post(place, headers=TUS | headers).status_code == status
    assert _offset(owner, place) == 0
    assert owner.delete(place, headers=TUS).status_code == 204
    assert owner.head(place, headers=TUS).status_code == 404


def test_another_site_cannot_upload_in_a_visitors_name(owner: httpx.Client) -> None:
    headers = TUS | {"Upload-Length": "5", "Upload-Metadata": _metadata(), "Origin": "https://evil.example"}
    assert owner.post("/uploads/", headers=headers).status_code == 403
    del headers["Tus-Resumable"], headers["Origin"]
    answer = owner.post("/uploads/", headers=headers)
    assert (answer.status_code, answer.headers["Tus-Version"]) == (412, "1.0.0")


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Upload-Length": "x"}, 400, "whole number"),
        ({"Upload-Length": "-1"}, 400, "whole number"),
        ({"Upload-Length": "9" * 30}, 400, "whole number"),
        ({"Upload-Length": "0"}, 400, "empty"),
        ({"Upload-Length": str(60 << 30)}, 413, "50.0 GiB allowed"),
        ({"Upload-Defer-Length": "1"}, 400, "length"),
        ({"Upload-Metadata": ""}, 400, "competition"),
        ({"Upload-Metadata": "competition !!!"}, 400, "Base64"),
        ({"Upload-Metadata": "competition " + "A" * 5000}, 400, "characters"),
        ({"Upload-Metadata": _metadata(competition="none")}, 404, "no competition"),
        ({"Upload-Metadata": _metadata(track="none")}, 404, "Its tracks: cpu"),
        ({"Upload-Metadata": _metadata(sha256="short")}, 400, "64 hexadecimal"),
        ({"Upload-Metadata": "competition " + base64.b64encode(b"\xff\xfe").decode()}, 400, "UTF-8"),
    ],
)
def test_a_bad_creation_is_refused_in_words(
    owner: httpx.Client, headers: dict[str, str], status: int, words: str
) -> None:
    answer = owner.post("/uploads/", headers=TUS | {"Upload-Length": "5", "Upload-Metadata": _metadata()} | headers)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_a_bad_piece_is_refused_and_nothing_of_it_kept(owner: httpx.Client) -> None:
    place = _create(owner, 1000)
    assert _patch(owner, place, 5, b"x").status_code == 409
    assert _patch(owner, place, 0, b"x", Content_Type="text/plain").status_code == 415
    answer = _patch(owner, place, 0, b"x" * 1001)
    assert (answer.status_code, _offset(owner, place)) == (413, 0)
    assert owner.get("/uploads/not-an-id").status_code == 404
    assert owner.put(place, headers=TUS).status_code == 405
    assert owner.get("/uploads/").status_code == 405


def test_the_server_says_what_it_can(owner: httpx.Client) -> None:
    answer = owner.options("/uploads/")
    assert answer.status_code == 204
    assert answer.headers["Tus-Extension"] == "creation,creation-with-upload,expiration,checksum,termination"
    assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256,sha512,crc32"
    assert answer.headers["Tus-Max-Size"] == str(50 << 30)


def test_a_file_can_come_with_its_creation(owner: httpx.Client, archive: Path) -> None:
    content = archive.read_bytes()
    headers = BYTES | {"Upload-Length": str(len(content)), "Upload-Metadata": _metadata()}
    answer = owner.post("/uploads/", headers=headers, content=content)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, str(len(content)))
    assert _end(owner, answer.headers["Location"])["state"] == "accepted"


def test_only_so_many_uploads_at_once_and_they_end(tmp_path: Path) -> None:
    with (
        running(tmp_path, TILTYARD_UNFINISHED_UPLOADS_MAX="2", TILTYARD_UPLOAD_EXPIRY_S="1") as server,
        httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {OWNER_TOKEN}"}, timeout=30) as client,
    ):
        place = _create(client, 1000)
        _create(client, 1000)
        headers = TUS | {"Upload-Length": "5", "Upload-Metadata": _metadata()}
        answer = client.post("/uploads/", headers=headers)
        if answer.status_code == 429:  # a slow machine may have let the first one expire already
            assert "2 unfinished uploads" in answer.json()["detail"]
        deadline = time.monotonic() + 20
        while client.post("/uploads/", headers=headers).status_code != 201 and time.monotonic() < deadline:
            time.sleep(0.2)
        answer = client.get(place)
        assert answer.json()["state"] == "expired"
        assert not (tmp_path / "uploads" / "resumable" / f"{place.rsplit('/', 1)[1]}.part").exists()


def _wait_until_empty(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(folder.iterdir()) == []


def _raw_patch(place: str, offset: int, length: int) -> bytes:
    lines = [
        f"PATCH {place} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {OWNER_TOKEN}",
        *(f"{name}: {value}" for name, value in BYTES.items()),
        f"Upload-Offset: {offset}",
        f"Content-Length: {length}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode()
