"""An upload's bytes go past the page cache where they can, and arrive the same where they cannot."""

import asyncio
import errno
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from tiltyard.submissions.uploads import Message
from tiltyard.uploads import disk, files, protocol, receiving

CONTENT = os.urandom(3 * disk.BUFFER_BYTES + 12_345)


@pytest.fixture
def upload(settings: Any, tmp_path: Path) -> uuid.UUID:
    settings.UPLOAD_DIR = tmp_path
    found = uuid.uuid4()
    files.create(found)
    return found


@pytest.fixture(params=["direct", "no such files", "no such writes"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Also as on a file system that opens no file for direct writing, or opens it and then refuses each."""
    opened = os.open

    def open_(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct writing")
        return opened(path, flags, *more)

    def pwrite(*_: object) -> int:
        raise OSError(errno.EINVAL, "not aligned")

    if request.param == "no such files":
        monkeypatch.setattr(os, "open", open_)
    elif request.param == "no such writes":
        monkeypatch.setattr(os, "pwrite", pwrite)
    return str(request.param)


def _send(upload: uuid.UUID, content: bytes, *, chunk_bytes: int, is_whole: bool) -> None:
    """One request's body in chunks; one that is not whole breaks off."""

    async def send() -> None:
        chunks = iter([content[i : i + chunk_bytes] for i in range(0, len(content), chunk_bytes)])

        async def receive() -> Message:
            chunk = next(chunks, None)
            if chunk is None:
                return {"type": "http.request", "more_body": False} if is_whole else {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunk, "more_body": True}

        file = files.lock(upload)
        assert file is not None
        with file:
            async with asyncio.timeout(receiving.IDLE_S) as patience:
                promised = protocol.Promised.read({})
                await receiving.append_body(file, len(CONTENT), promised, receive, patience)

    asyncio.run(send())


@pytest.mark.parametrize("cuts", [(), (1,), (4096,), (disk.BUFFER_BYTES - 1, disk.BUFFER_BYTES + 4097), (5_000_001,)])
def test_bytes_arrive_whole_wherever_the_connection_broke(kind: str, upload: uuid.UUID, cuts: tuple[int, ...]) -> None:
    start = 0
    for cut in cuts:
        _send(upload, CONTENT[start:cut], chunk_bytes=65_521, is_whole=False)
        assert files.offset_of(upload) == cut
        start = cut
    _send(upload, CONTENT[start:], chunk_bytes=65_521, is_whole=True)
    assert files.path_of(upload).read_bytes() == CONTENT
    file = files.lock(upload)
    assert file is not None
    with file:
        assert file.sha256() == hashlib.sha256(CONTENT).hexdigest()


def test_aligned_bytes_are_written_directly(upload: uuid.UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        os.close(os.open(files.path_of(upload), os.O_WRONLY | os.O_DIRECT))
    except OSError:
        pytest.skip("the disk of the tests takes no direct writes")
    direct: list[int] = []
    cached: list[int] = []
    pwrite, write = os.pwrite, os.write

    def noted_pwrite(descriptor: int, content: memoryview, offset: int) -> int:
        direct.append(pwrite(descriptor, content, offset))
        return direct[-1]

    def noted_write(descriptor: int, content: memoryview) -> int:
        written = write(descriptor, content)
        if isinstance(content, memoryview):  # others write bytes
            cached.append(written)
        return written

    with monkeypatch.context() as noted:
        noted.setattr(os, "pwrite", noted_pwrite)
        noted.setattr(os, "write", noted_write)
        _send(upload, CONTENT[:1_000_001], chunk_bytes=100_000, is_whole=False)
        _send(upload, CONTENT[1_000_001:], chunk_bytes=100_000, is_whole=True)
    assert files.path_of(upload).read_bytes() == CONTENT
    assert sum(direct) + sum(cached) == len(CONTENT)
    assert sum(cached) < 3 * disk.ALIGNMENT


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk that is full within the second write, and has room again at once; the places of all writes."""
    calls: list[int] = []
    wrote = disk.Tail.write

    def write(tail: disk.Tail, content: memoryview, offset_bytes: int) -> int:
        calls.append(offset_bytes)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return wrote(tail, content[: disk.ALIGNMENT] if len(calls) == 2 else content, offset_bytes)

    monkeypatch.setattr(disk.Tail, "write", write)
    return calls


def test_nothing_follows_on_what_could_not_be_written(upload: uuid.UUID, full_disk: list[int]) -> None:
    with pytest.raises(OSError, match="No space"):
        _send(upload, CONTENT, chunk_bytes=100_000, is_whole=True)
    assert len(full_disk) == 3
    kept = files.path_of(upload).read_bytes()
    assert len(kept) == disk.BUFFER_BYTES + disk.ALIGNMENT
    assert kept == CONTENT[: len(kept)]
