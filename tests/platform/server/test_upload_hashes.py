"""How far an upload is hashed survives its process, and is never believed of other bytes."""

import errno
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
import xxhash

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


def _add_piece(file: files.Growing, content: bytes, digest: bytes | None = None) -> bool:
    """As a request does whose body is a piece, or the rest of one."""
    file.catch_up()
    running = file.begin_piece()
    file.append(_view(content))
    running.update(content)
    return file.end_piece(running, digest or xxhash.xxh3_128(content).digest(), size_bytes=file.offset_bytes)


def test_a_wrong_digest_takes_the_file_back_to_where_it_was_right(kind: str, upload: uuid.UUID) -> None:
    with _lock(upload) as file:
        assert _add_piece(file, b"right")
        assert file.checked_bytes == len(b"right")
        file.append(_view(b" and broken off"))
    assert files.checked_of(upload) == len(b"right")
    with _lock(upload) as file:  # of which nobody has said anything
        assert not _add_piece(file, b" and wrong", xxhash.xxh3_128(b" and wrong").digest())
        assert (file.offset_bytes, file.checked_bytes) == (len(b"right"), len(b"right"))
        assert _add_piece(file, b" again")
        assert file.sha256() == _hash(b"right again")
    assert files.path_of(upload).read_bytes() == b"right again"


def test_a_piece_that_was_broken_off_is_checked_from_its_beginning(kind: str, upload: uuid.UUID) -> None:
    with _lock(upload) as file:
        assert _add_piece(file, b"first ")
        file.append(_view(b"sec"))
    with _lock(upload) as file:
        assert _add_piece(file, b"ond", xxhash.xxh3_128(b"second").digest())
        assert file.sha256() == _hash(b"first second")


@pytest.mark.parametrize("damage", ["none", "first", "second", "cut", "longer"])
def test_after_a_new_start_of_the_machine_pieces_are_held_to_their_digests(
    damage: str, upload: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_READ_BYTES", 5)
    with _lock(upload) as file:
        assert _add_piece(file, b"the first|")
        assert _add_piece(file, b"the second|")
    path = files.path_of(upload)
    content = b"the first|the second|"
    on_disk = {
        "none": content,
        "first": b"the fir\0t|the second|",
        "second": b"the first|\0" * 2,
        "cut": content[:-3],
        "longer": content + b"of which nobody knows",
    }[damage]
    path.write_bytes(on_disk)
    monkeypatch.setattr(hashes, "_boot", lambda: "another boot")
    assert files.checked_of(upload) == 0
    with _lock(upload) as file:
        assert not hashes.load(files.state_path_of(upload), len(on_disk)).hashed.end_bytes
        file.catch_up(iter([False, True]).__next__)  # the server dies before it is done
    good = {"none": 21, "first": 0, "second": 10, "cut": 10, "longer": 21}[damage]
    with _lock(upload) as file:
        assert file.sha256() == _hash(content[:good])
        assert (file.offset_bytes, file.checked_bytes) == (good, good)
        assert _add_piece(file, content[good:] + b"and the third")
        assert file.sha256() == _hash(content + b"and the third")
    assert path.read_bytes() == content + b"and the third"


def test_small_pieces_count_together(upload: uuid.UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a list of millions of them would be read with every request."""
    monkeypatch.setattr(files, "_PIECE_BYTES_MIN", 4)

    def add(file: files.Growing, content: bytes, all_of_it: bytes) -> bool:
        running = file.begin_piece()
        file.append(_view(content))
        running.update(content)
        return file.end_piece(running, xxhash.xxh3_128(all_of_it).digest(), size_bytes=100)

    with _lock(upload) as file:
        assert add(file, b"ab", b"ab")
        assert file.checked_bytes == 0
        assert not add(file, b"cd", b"cd")  # without what it counts together with
        assert file.offset_bytes == 0
        assert add(file, b"ab", b"ab")
        assert add(file, b"cd", b"abcd")
        assert file.checked_bytes == 4
        monkeypatch.setattr(files, "_PIECES_MAX", 10)  # of a hundred bytes ten at least
        assert add(file, b"efgh", b"efgh")
        assert file.checked_bytes == 4


def test_what_was_never_checked_goes_where_digests_are_given(upload: uuid.UUID) -> None:
    with _lock(upload) as file:
        assert _add_piece(file, b"right")
        file.promise()
        file.append(_view(b" and broken off"))
    with _lock(upload) as file:
        file.hold_to_promises()
        assert file.sha256() == _hash(b"right")
    plain = uuid.uuid4()
    files.create(plain)
    with _lock(plain) as file:
        file.append(_view(b"by a client of tus"))
        file.hold_to_promises()
        assert file.offset_bytes == len(b"by a client of tus")


def test_what_no_client_gave_digests_of_is_kept_after_a_new_start(
    upload: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _lock(upload) as file:
        file.append(_view(b"by a client of tus"))
    monkeypatch.setattr(hashes, "_boot", lambda: "another boot")
    with _lock(upload) as file:
        assert file.sha256() == _hash(b"by a client of tus")


def test_a_full_disk_leaves_a_true_hash(kind: str, upload: uuid.UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    with _lock(upload) as file:

        def half_of_it(content: memoryview, offset_bytes: int) -> int:
            if offset_bytes:
                raise OSError(errno.ENOSPC, "full")
            return os.write(file._descriptor, content[:4])

        monkeypatch.setattr(file._tail, "write", half_of_it)
        with pytest.raises(OSError, match="full"):
            file.append(_view(b"halflost"))
    assert files.path_of(upload).read_bytes() == b"half"
    with _lock(upload) as file:
        assert file.sha256() == _hash(b"half")


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
