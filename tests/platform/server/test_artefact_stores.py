"""Artefacts on disk and in a real S3 server: kept once, whole, and removed when nothing refers to them."""

import base64
import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management import call_command
from s3_server import BUCKET, S3Server, s3_server
from upload_server import OWNER_TOKEN, SLUG, running
from uploads_for_tests import context_archive

from tiltyard.operations.health import storage_answers
from tiltyard.submissions.collection import collect_artefacts
from tiltyard.submissions.models import Artefact, StoreOwner
from tiltyard.submissions.stores import Store, StoreError, s3, store
from tiltyard.submissions.stores.disk import DiskStore
from tiltyard.submissions.stores.s3 import S3Store
from tiltyard.submissions.stores.scratch import sweep_scratch

TUS = {"Tus-Resumable": "1.0.0"}
LATER = timedelta(days=2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "objects") as server:
        yield server


@pytest.fixture
def s3_store(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)  # the least that the protocol allows
    prefix = f"site-{tmp_path.name.lower()}"
    return S3Store(bucket=BUCKET, prefix=prefix, endpoint_url=server.url, region="us-east-1", scratch_dir=tmp_path)


@pytest.fixture(params=["disk", "s3"])
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return DiskStore(tmp_path / "artefacts")
    found: S3Store = request.getfixturevalue("s3_store")
    return found


def _file(path: Path, size: int) -> tuple[Path, str]:
    content = os.urandom(size)
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [1000, 12 << 20])
def test_a_file_is_kept_once_and_comes_back_whole(keeper: Store, tmp_path: Path, size: int) -> None:
    path, sha256 = _file(tmp_path / "upload", size)
    content = path.read_bytes()
    assert not keeper.holds(sha256)
    with pytest.raises(StoreError), keeper.fetched(sha256):
        pass
    for _ in range(2):
        path.write_bytes(content)
        keeper.send_ahead(path, sha256)
        assert path.read_bytes() == content
        keeper.put(path, sha256)
    assert keeper.holds(sha256)
    assert [name for name, _ in keeper.stored()] == [sha256]
    [(_, since)] = keeper.stored()
    assert abs(since - datetime.now(UTC)) < timedelta(minutes=5)
    with keeper.fetched(sha256) as fetched:
        assert fetched.read_bytes() == content
    keeper.remove(sha256)
    keeper.remove(sha256)
    assert not keeper.holds(sha256)
    assert list(keeper.stored()) == []
    assert keeper.answers()


def test_what_the_disk_store_took_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sha256 = _file(tmp_path / "upload", 1000)
    keeper = DiskStore(tmp_path / "artefacts")
    place = keeper.path_of(sha256)
    written: list[tuple[Path, bool]] = []

    def fsync(descriptor: int) -> None:
        written.append((Path(f"/proc/self/fd/{descriptor}").readlink(), place.exists()))

    def rename(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    keeper.put(path, sha256)
    assert not path.exists()
    [(staged, was_in_place), *folders] = written
    assert (staged.parent, staged.suffix, was_in_place) == (place.parent, ".part", False)
    assert folders == [(place.parent, True), (place.parent.parent, True)]


def test_objects_have_a_type_that_no_browser_runs(s3_store: S3Store, server: S3Server, tmp_path: Path) -> None:
    for size in (100, 6 << 20):
        path, sha256 = _file(tmp_path / "page.html", size)
        s3_store.put(path, sha256)
        head = s3_store._client.head_object(Bucket=BUCKET, Key=s3_store._key(sha256))
        assert (head["ContentType"], head["ContentDisposition"]) == ("application/octet-stream", "attachment")


def test_an_object_that_was_changed_is_not_handed_out(s3_store: S3Store, server: S3Server, tmp_path: Path) -> None:
    path, sha256 = _file(tmp_path / "upload", 1000)
    s3_store.put(path, sha256)
    [lies] = [found for found in server.objects() if found.name == sha256]
    lies.write_bytes(b"x" + lies.read_bytes()[1:])
    with pytest.raises(StoreError, match="changed or damaged"), s3_store.fetched(sha256):
        pass
    assert list(tmp_path.glob("artefact-*")) == []


def test_a_broken_multipart_upload_goes_on_with_the_parts_that_are_right(
    s3_store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sha256 = _file(tmp_path / "upload", 12 << 20)
    sent: list[int] = []
    upload_part = s3_store._client.upload_part

    def breaks(**arguments: Any) -> Any:
        if arguments["PartNumber"] == 3:
            raise StoreError("the server was killed here")
        return upload_part(**arguments)

    with monkeypatch.context() as killed:
        killed.setattr(s3_store._client, "upload_part", breaks)
        with pytest.raises(StoreError):
            s3_store.put(path, sha256)
    assert not s3_store.holds(sha256)

    def counts(**arguments: Any) -> Any:
        sent.append(arguments["PartNumber"])
        return upload_part(**arguments)

    monkeypatch.setattr(s3_store._client, "upload_part", counts)
    s3_store.put(path, sha256)
    assert sent == [3]
    with s3_store.fetched(sha256) as fetched:
        assert fetched.read_bytes() == path.read_bytes()


def test_a_part_that_arrived_as_something_else_is_not_believed(s3_store: S3Store, tmp_path: Path) -> None:
    path, sha256 = _file(tmp_path / "upload", 12 << 20)
    key = {"Bucket": BUCKET, "Key": s3_store._key(sha256)}
    begun = s3_store._client.create_multipart_upload(**key)
    s3_store._client.upload_part(**key, UploadId=begun["UploadId"], PartNumber=1, Body=os.urandom(5 << 20))
    with contextlib.suppress(StoreError):  # this server cannot replace the part: then it is done with the upload
        s3_store.put(path, sha256)
    s3_store.put(path, sha256)
    with s3_store.fetched(sha256) as fetched:
        assert fetched.read_bytes() == path.read_bytes()


def test_a_multipart_upload_that_never_ends_is_aborted(s3_store: S3Store) -> None:
    key = s3_store._key("a" * 64)
    s3_store._client.create_multipart_upload(Bucket=BUCKET, Key=key)
    now = datetime.now(UTC)
    assert s3_store.sweep(now - timedelta(hours=1)) == 0
    assert s3_store.sweep(now + timedelta(hours=1)) == 1
    assert s3_store._unfinished(key) == []


def test_a_store_that_is_away_says_so(tmp_path: Path, s3_store: S3Store) -> None:
    away = S3Store(
        bucket=BUCKET, prefix="", endpoint_url="http://127.0.0.1:1", region="us-east-1", scratch_dir=tmp_path
    )
    path, sha256 = _file(tmp_path / "upload", 10)
    for act in (away.put, away.send_ahead):
        with pytest.raises(StoreError):
            act(path, sha256)
    assert not away.answers()


def test_a_store_keeps_the_name_of_its_owner(keeper: Store) -> None:
    assert keeper.owner() is None
    for owner in ("one", "other"):
        keeper.set_owner(owner)
        assert keeper.owner() == owner
    assert list(keeper.stored()) == []


def test_the_copy_of_a_killed_process_is_swept_and_one_in_use_is_not(s3_store: S3Store, tmp_path: Path) -> None:
    path, sha256 = _file(tmp_path / "upload", 1000)
    s3_store.put(path, sha256)
    code = (
        "import os, pathlib, signal, sys\n"
        "from tiltyard.submissions.stores.scratch import scratch_file\n"
        "with scratch_file(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    [left] = tmp_path.glob("artefact-*")
    assert sweep_scratch(tmp_path) == 0  # it could have been begun just now
    with s3_store.fetched(sha256) as fetched:
        for copy in (left, fetched):
            os.utime(copy, (0, 0))
        assert sweep_scratch(tmp_path) == 1
        assert list(tmp_path.glob("artefact-*")) == [fetched]
    assert list(tmp_path.glob("artefact-*")) == []


@pytest.mark.slow
def test_a_site_keeps_what_comes_in_pieces_in_s3(server: S3Server, tmp_path: Path) -> None:
    files = {"weights.txt": base64.b64encode(os.urandom(18 << 20)).decode()}  # more than one part of 16 MiB
    archive = context_archive(tmp_path / "entry.tar.gz", files=files)
    content = archive.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    data = tmp_path / "data"
    data.mkdir()
    with (
        running(data, **server.environment("whole-site")) as site,
        httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {OWNER_TOKEN}"}, timeout=60) as client,
    ):
        metadata = f"competition {base64.b64encode(SLUG.encode()).decode()}"
        headers = TUS | {"Upload-Length": str(len(content)), "Upload-Metadata": metadata}
        place = client.post("/uploads/", headers=headers).headers["Location"]
        offset = 0
        while offset < len(content):
            headers = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
            answer = client.patch(place, headers=headers, content=content[offset : offset + (8 << 20)])
            offset = int(answer.headers["Upload-Offset"])
        deadline = time.monotonic() + 120
        while (found := client.get(place).json())["state"] in {"checking", "receiving"}:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert (found["state"], found["detail"]) == ("accepted", "")
        [stored] = [path for path in server.objects() if "whole-site" in path.parts]
        assert stored.name == sha256
        assert hashlib.sha256(stored.read_bytes()).hexdigest() == sha256
        assert [path for path in (data / "artefacts").rglob("*") if path.is_file()] == []
        # No address of the site serves it, whatever its type.
        for address in (f"/artefacts/{sha256[:2]}/{sha256}", f"/media/{sha256}", f"/uploads/{sha256}"):
            assert client.get(address).status_code == 404


@pytest.mark.django_db
def test_what_nothing_refers_to_is_collected(settings: Any, tmp_path: Path) -> None:
    settings.ARTEFACT_DIR = tmp_path / "artefacts"
    (tmp_path / "artefacts").mkdir()
    now = datetime.now(UTC)
    hashes = []
    for name in ("row and file", "file alone"):
        path, sha256 = _file(tmp_path / name, 100)
        store().put(path, sha256)
        hashes.append(sha256)
    Artefact.objects.create(sha256=hashes[0], kind="docker_context", size_bytes=100, needed_at=now)
    assert collect_artefacts(now) == 0
    assert all(map(store().holds, hashes))
    Artefact.objects.update(needed_at=now + LATER)  # handed in again meanwhile
    assert collect_artefacts(now + LATER) == 1  # the file that no row names
    assert [store().holds(sha256) for sha256 in hashes] == [True, False]
    assert collect_artefacts(now + 2 * LATER) == 1
    assert not Artefact.objects.exists()
    assert list(store().stored()) == []


@pytest.fixture
def disk(settings: Any, tmp_path: Path) -> Store:
    settings.ARTEFACT_DIR = tmp_path / "artefacts"
    (tmp_path / "artefacts").mkdir()
    return store()


@pytest.mark.django_db
def test_another_sites_files_are_left_alone(disk: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = datetime.now(UTC)
    path, sha256 = _file(tmp_path / "theirs", 100)
    disk.put(path, sha256)
    assert collect_artefacts(now) == 0  # the first site has the store from now on
    assert storage_answers()
    StoreOwner.objects.all().delete()  # and this is another one, with another database
    assert collect_artefacts(now + LATER) == 0
    assert disk.holds(sha256)
    assert "belongs to another site" in caplog.text
    assert not storage_answers()
    call_command("take_artefact_store")
    assert storage_answers()
    assert collect_artefacts(now + LATER) == 1
    assert not disk.holds(sha256)


@pytest.mark.django_db
def test_one_that_cannot_be_removed_holds_no_other_up(
    disk: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(UTC)
    hashes = []
    for number in range(4):
        path, sha256 = _file(tmp_path / "upload", 100 + number)
        disk.put(path, sha256)
        hashes.append(sha256)
    for sha256 in hashes[:2]:
        Artefact.objects.create(sha256=sha256, kind="docker_context", size_bytes=100, needed_at=now)
    for stuck in (hashes[0], hashes[2]):  # a folder of that name cannot be unlinked, whoever tries
        place = tmp_path / "artefacts" / stuck[:2] / stuck
        place.unlink()
        place.mkdir()
    monkeypatch.setattr(Path, "is_file", Path.exists)
    assert collect_artefacts(now + LATER) == 2
    assert {sha256 for sha256, _ in disk.stored()} == {hashes[0], hashes[2]}
    assert Artefact.objects.get().sha256 == hashes[0]
    assert caplog.text.count("an artefact cannot be collected: The disk") == 2
