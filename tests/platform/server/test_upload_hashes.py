"""How far an upload is hashed survives its process, and is never believed of other bytes."""

import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from tiltyard import sha256
from tiltyard.uploads import files, hashes


@pytest.fixture(params=["movable", "not movable"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Also as where libcrypto cannot be called."""
    if request.param == "not movable":
        monkeypatch.setattr(sha256, "_library", None)
    return str(request.param)


@pytest.fixture
def upload(settings: Any, tmp_path: Path) -> uuid.UUID:
    settings.UPLOAD_DIR = tmp_path
    found = uuid.uuid4()
    files.create(found)
    return found


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _view(content: bytes) -> memoryview:
    return memoryview(bytearray(content))


def _lock(upload: uuid.UUID) -> files.Growing:
    file = files.lock(upload)
    assert file is not None
    return file


def test_a_hash_goes_on_where_it_was_put_aside() -> None:
    content = os.urandom(1000)
    for cut in (0, 1, 63, 64, 65, 999):
        running = sha256.new()
        running.update(content[:cut])
        state = sha256.state_of(running)
        assert state is not None  # here Python's libcrypto can be called
        resumed = sha256.resumed(state)
        assert resumed is not None
        resumed.update(memoryview(bytearray(content[cut:])))
        assert resumed.hexdigest() == _hash(content)
        assert running.hexdigest() == _hash(content[:cut])
    assert sha256.resumed(b"short") is None


def test_what_is_hashed_is_not_read_again(kind: str, upload: uuid.UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(5000)
    with _lock(upload) as file:
        file.catch_up()
        file.append(_view(content[:1000]))
        file.append(_view(content[1000:3000]))
    with monkeypatch.context() as reading:
        reading.setattr(files.os, "pread", lambda *_: pytest.fail("it was read again"))
        with _lock(upload) as file:
            file.catch_up()
            file.append(_view(content[3000:]))
            assert file.sha256() == _hash(content)


def test_what_reached_the_file_and_not_the_state_is_hashed(kind: str, upload: uuid.UUID) -> None:
    with _lock(upload) as file:
        file.append(_view(b"noted"))
    with files.path_of(upload).open("ab") as part:
        part.write(b" and killed")
    with _lock(upload) as file:
        assert file.sha256() == _hash(b"noted and killed")
    files.state_path_of(upload).write_text("{]")
    with _lock(upload) as file:
        assert file.sha256() == _hash(b"noted and killed")


def test_a_wrong_hash_takes_the_file_back_to_where_it_was_right(kind: str, upload: uuid.UUID) -> None:
    with _lock(upload) as file:
        file.catch_up()
        file.append(_view(b"right"))
        assert file.verify(_hash(b"right"))
        file.append(_view(b" and broken off"))
    with _lock(upload) as file:  # of which nobody has said anything
        file.catch_up()
        file.append(_view(b" and wrong"))
        assert not file.verify(_hash(b"something else"))
        assert file.offset_bytes == len(b"right")
        file.append(_view(b" again"))
        assert file.verify(_hash(b"right again"))
    assert files.path_of(upload).read_bytes() == b"right again"


def test_bytes_that_were_taken_back_are_not_hashed(kind: str, upload: uuid.UUID) -> None:
    with _lock(upload) as file:
        file.append(_view(b"first"))
    with _lock(upload) as file:
        file.catch_up()
        file.append(_view(b"dropped"))
        file.rewind()
        file.append(_view(b"kept!!!"))
    with _lock(upload) as file:
        assert file.sha256() == _hash(b"firstkept!!!")


def test_a_state_of_another_boot_or_of_a_longer_file_is_not_believed(
    upload: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _lock(upload) as file:
        file.append(_view(b"0123456789"))
    path = files.state_path_of(upload)
    assert hashes.load(path, 10).hashed.end_bytes == 10
    assert hashes.load(path, 9).hashed.end_bytes == 0
    monkeypatch.setattr(hashes, "_BOOT_ID", path.with_name("none"))
    assert hashes.load(path, 10).hashed.end_bytes == 0
