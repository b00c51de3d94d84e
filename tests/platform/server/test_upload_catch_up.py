"""A hash that is behind catches up before more is appended: in its own time, and never torn by who comes between."""

import asyncio
import hashlib
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tiltyard.submissions.uploads import Message
from tiltyard.uploads import app, files, hashes, protocol, receiving
from tiltyard.uploads.models import Upload
from tiltyard.uploads.protocol import TusError

BLOCK = 1000
CONTENT = os.urandom(5 * BLOCK)


@pytest.fixture
def upload(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upload:
    """Some blocks of it have arrived, and none is hashed."""
    settings.UPLOAD_DIR = tmp_path
    monkeypatch.setattr(files, "_READ_BYTES", BLOCK)
    found = Upload(pk=uuid.uuid4(), size_bytes=len(CONTENT) + 4)
    files.create(found.pk)
    files.path_of(found.pk).write_bytes(CONTENT)
    return found


def _lock(upload: Upload) -> files.Growing:
    file = files.lock(upload.pk)
    assert file is not None
    return file


async def _nothing(*_: object) -> None:
    raise AssertionError("it was passed on")


async def _rest() -> Message:
    return {"type": "http.request", "body": b"rest", "more_body": False}


def test_who_takes_over_while_it_is_hashed_gets_a_true_hash(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    is_between, may_go_on = threading.Event(), threading.Event()

    def update(mark: hashes.Mark, content: bytes) -> None:
        mark.running.update(content)
        is_between.set()
        may_go_on.wait(20)
        mark.end_bytes += len(content)

    async def taken_over() -> None:
        door = app.ResumableUploads(_nothing)
        receiving = asyncio.create_task(door._receive(upload, len(CONTENT), {}, _rest))
        await asyncio.to_thread(is_between.wait, 20)
        stopping = asyncio.create_task(door._stop_writer(upload.pk))
        await asyncio.sleep(0.2)
        may_go_on.set()
        await stopping
        assert door._writing == {}
        with pytest.raises(TusError, match="another connection took over"):
            await receiving

    with monkeypatch.context() as slow:
        slow.setattr(hashes.Mark, "update", update)
        asyncio.run(taken_over())
    hashed = hashes.load(files.state_path_of(upload.pk), len(CONTENT)).hashed
    assert hashed.end_bytes == BLOCK  # kept, and no further than the block that was at hand
    with _lock(upload) as file:
        assert file.sha256() == hashlib.sha256(CONTENT).hexdigest()


def test_hashing_may_take_longer_than_a_silent_connection(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "IDLE_S", 1.0)
    read = os.pread

    def slowly(*arguments: int) -> bytes:
        time.sleep(0.3)
        return read(*arguments)

    async def append() -> None:
        with _lock(upload) as file:
            async with asyncio.timeout(receiving.IDLE_S) as patience:
                await receiving.append_body(file, upload.size_bytes, protocol.Promised.read({}), _rest, patience)

    with monkeypatch.context() as slow:
        slow.setattr(os, "pread", slowly)
        asyncio.run(append())
    with _lock(upload) as file:
        assert file.sha256() == hashlib.sha256(CONTENT + b"rest").hexdigest()


def test_the_file_is_not_let_go_while_a_thread_writes(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor would be another file's by then."""
    may_go_on, has_ended = threading.Event(), threading.Event()
    append = files.Growing.append

    def slowly(file: files.Growing, content: memoryview) -> None:
        may_go_on.wait(20)
        append(file, content)
        has_ended.set()

    async def taken_over() -> None:
        door = app.ResumableUploads(_nothing)
        work = asyncio.create_task(door._receive(upload, len(CONTENT), {}, _rest))
        await asyncio.sleep(0.3)  # all has come; what is left is written
        for _ in range(3):
            work.cancel()
            await asyncio.sleep(0.1)
            assert not work.done()
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert has_ended.is_set()

    monkeypatch.setattr(files.Growing, "append", slowly)
    asyncio.run(taken_over())
    with _lock(upload) as file:
        assert file.sha256() == hashlib.sha256(CONTENT + b"rest").hexdigest()


def test_a_piece_from_elsewhere_is_refused_before_anything_is_read(
    upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.Growing, "begin_piece", lambda *_: pytest.fail("it was read"))
    header = {"upload-piece-digest": f"xxh3-128=:{'A' * 22}==:;from=7"}
    with pytest.raises(TusError, match="checked up to byte 0") as refused:
        asyncio.run(app.ResumableUploads(_nothing)._receive(upload, len(CONTENT), header, _rest))
    assert (refused.value.status, refused.value.headers["upload-checked-offset"]) == (409, "0")
