"""`tiltyard submit` with a file that goes in pieces: the server dies under it, the user stops it, both go on."""

import base64
import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from upload_server import OWNER_TOKEN, SLUG, UploadServer, running
from uploads_for_tests import DOCKERFILE, MANIFEST, context_archive

from tiltyard.cli import resumable
from tiltyard.cli.client import ApiClient
from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.output import Output
from tiltyard.cli.targets import prepared_upload

pytestmark = [pytest.mark.slow]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "PIECE_BYTES", 1 << 20)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = base64.b64encode(os.urandom(9 << 20)).decode()
    return context_archive(tmp_path_factory.mktemp("archive") / "entry.tar.gz", files={"weights.txt": weights})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[UploadServer]:
    with running(tmp_path) as server:
        yield server


@pytest.fixture
def client(server: UploadServer) -> Iterator[ApiClient]:
    with ApiClient(server.url, OWNER_TOKEN) as client:
        yield client


def _artefact(server: UploadServer, archive: Path) -> bytes:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return (server.data_dir / "artefacts" / sha256[:2] / sha256).read_bytes()


def test_a_server_that_is_killed_twice_gets_the_whole_file(
    server: UploadServer, client: ApiClient, archive: Path
) -> None:
    size = archive.stat().st_size
    assert size > resumable.SINGLE_REQUEST_BYTES_MAX
    kills = [size // 3, 2 * size // 3]
    said: list[str] = []

    def on_offset(offset: int) -> None:
        if kills and offset > kills[0]:
            kills.pop(0)
            server.kill()
            server.start()

    sent = client.submit(SLUG, archive, "entry.tar.gz", None, on_offset=on_offset, say=said.append)
    assert kills == []
    assert client.run(str(sent["run_id"]))["state"] == "queued"
    assert _artefact(server, archive) == archive.read_bytes()


def test_the_same_command_goes_on_where_the_last_one_stopped(
    server: UploadServer, client: ApiClient, archive: Path
) -> None:
    half = archive.stat().st_size // 2

    def interrupted(offset: int) -> None:
        if offset > half:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.submit(SLUG, archive, "entry.tar.gz", "cpu", on_offset=interrupted, say=lambda _: None)
    offsets: list[int] = []
    said: list[str] = []
    client.submit(SLUG, archive, "entry.tar.gz", "cpu", on_offset=offsets.append, say=said.append)
    assert offsets[0] > half
    assert said[0].startswith("Going on at byte")
    assert len(client.submissions()) == 1
    # What was accepted is forgotten: the next call begins anew.
    client.submit(SLUG, archive, "entry.tar.gz", "cpu", on_offset=offsets.append, say=said.append)
    assert len(client.submissions()) == 2


def test_a_folder_that_is_packed_anew_goes_on_where_the_last_call_stopped(
    server: UploadServer, client: ApiClient, tmp_path: Path
) -> None:
    folder = tmp_path / "entry"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "tiltyard.yaml").write_text(yaml.safe_dump(MANIFEST))
    (folder / "weights.bin").write_bytes(os.urandom(10 << 20))
    half = (folder / "weights.bin").stat().st_size // 2
    paths: list[Path] = []

    def submit(on_offset: Callable[[int], None], said: list[str]) -> None:
        with prepared_upload(str(folder), Output(json_mode=False)) as upload:
            paths.append(upload.path)
            client.submit(
                SLUG, upload.path, upload.filename, None, sha256=upload.sha256, on_offset=on_offset, say=said.append
            )

    def interrupted(offset: int) -> None:
        if offset > half:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit(interrupted, [])
    offsets: list[int] = []
    said: list[str] = []
    submit(offsets.append, said)
    assert paths[0] != paths[1]
    assert offsets[0] > half
    assert said[0].startswith("Going on at byte")
    assert len(client.submissions()) == 1


def test_a_file_that_changes_while_it_is_sent_is_not_handed_in(
    server: UploadServer, client: ApiClient, archive: Path, tmp_path: Path
) -> None:
    changing = tmp_path / "changing.tar.gz"
    changing.write_bytes(archive.read_bytes())

    def changes(offset: int) -> None:  # what follows is hashed by then, as is all of a file of this size
        if offset == 2 << 20:
            time.sleep(1)
            with changing.open("r+b") as file:
                file.seek(5 << 20)
                file.write(b"other bytes")

    with pytest.raises(CliError, match="changes while it is sent"):
        client.submit(SLUG, changing, "entry.tar.gz", None, on_offset=changes, say=lambda _: None)
    assert client.submissions() == []
    os.truncate(changing, 10 << 20)
    shrinks = [3 << 20]

    def shrink(offset: int) -> None:
        if shrinks and offset >= shrinks[0]:
            os.truncate(changing, shrinks.pop())

    with pytest.raises(CliError, match="became shorter"):
        client.submit(SLUG, changing, "entry.tar.gz", None, on_offset=shrink, say=lambda _: None)


def test_a_refused_file_says_why(server: UploadServer, client: ApiClient, tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish.tar.gz"
    rubbish.write_bytes(os.urandom(resumable.SINGLE_REQUEST_BYTES_MAX + 1))
    with pytest.raises(CliError, match="archive") as caught:
        client.submit(SLUG, rubbish, "rubbish.tar.gz", None, on_offset=lambda _: None, say=lambda _: None)
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(CliError, match="no competition"):
        client.submit("none", rubbish, "rubbish.tar.gz", None, on_offset=lambda _: None, say=lambda _: None)


def test_a_server_that_stays_away_keeps_what_it_has(
    server: UploadServer, client: ApiClient, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def dies(offset: int) -> None:
        if offset > 3 << 20 and server.process is not None and server.process.poll() is None:
            server.kill()

    with monkeypatch.context() as clock:
        clock.setattr(resumable.time, "sleep", pauses.append)
        with pytest.raises(CliError, match="give the same command again") as caught:
            client.submit(SLUG, archive, "entry.tar.gz", None, on_offset=dies, say=lambda _: None)
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert sum(pauses) > 60
    server.start()
    offsets: list[int] = []
    client.submit(SLUG, archive, "entry.tar.gz", None, on_offset=offsets.append, say=lambda _: None)
    assert offsets[0] > 3 << 20


def _set_end_of_phases(server: UploadServer, ends_at: datetime) -> None:
    with contextlib.closing(sqlite3.connect(server.data_dir / "tiltyard.sqlite3")) as database, database:
        database.execute("UPDATE competitions_phase SET ends_at = ?", [f"{ends_at:%Y-%m-%d %H:%M:%S}"])


def test_what_was_held_is_handed_in_by_the_same_command_later(
    server: UploadServer, client: ApiClient, archive: Path
) -> None:
    now = datetime.now(UTC)

    def closes(offset: int) -> None:
        if offset:
            _set_end_of_phases(server, now - timedelta(seconds=1))

    with pytest.raises(CliError, match="no phase is open"):
        client.submit(SLUG, archive, "entry.tar.gz", None, on_offset=closes, say=lambda _: None)
    _set_end_of_phases(server, now + timedelta(days=1))
    offsets: list[int] = []
    sent = client.submit(SLUG, archive, "entry.tar.gz", None, on_offset=offsets.append, say=lambda _: None)
    assert offsets == [archive.stat().st_size]
    assert client.run(str(sent["run_id"]))["state"] == "queued"


def test_a_check_that_does_not_end_is_not_waited_for_for_ever(
    server: UploadServer, client: ApiClient, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    in_the_way = server.data_dir / "artefacts" / sha256[:2] / sha256
    in_the_way.mkdir(parents=True)
    with monkeypatch.context() as impatient:
        impatient.setattr(resumable, "_CHECK_WAIT_S", 1.0)
        with pytest.raises(CliError, match="Nothing has to be sent again") as caught:
            client.submit(SLUG, archive, "entry.tar.gz", None, on_offset=lambda _: None, say=lambda _: None)
    assert caught.value.exit_code == ExitCode.UNREACHABLE
    in_the_way.rmdir()
    offsets: list[int] = []
    client.submit(SLUG, archive, "entry.tar.gz", None, on_offset=offsets.append, say=lambda _: None)
    assert offsets == [archive.stat().st_size]
