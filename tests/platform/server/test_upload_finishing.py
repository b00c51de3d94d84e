"""Complete uploads that cannot be finished at once: tried again, harmless to the store and to other uploads."""

import asyncio
import os
import stat
import threading
import uuid
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import xxhash
from django.utils import timezone
from web_rows import Site

from tiltyard.submissions import intake
from tiltyard.submissions.models import Submission
from tiltyard.submissions.uploads import Message
from tiltyard.uploads import app, files, service
from tiltyard.uploads.models import Upload
from tiltyard.uploads.protocol import TusError


@pytest.fixture
def now() -> datetime:
    """Handing in asks the real clock whether a phase is open."""
    return timezone.now()


@pytest.fixture
def upload(site: Site, archive: Path, now: datetime) -> Upload:
    """All of it has arrived."""
    found = _row(site, archive.stat().st_size, now)
    files.create(found.pk)
    files.path_of(found.pk).write_bytes(archive.read_bytes())
    return found


def _row(site: Site, size_bytes: int, now: datetime) -> Upload:
    return Upload.objects.create(
        owner=site.owner,
        competition=site.competition,
        track=site.track,
        filename="entry.tar.gz",
        size_bytes=size_bytes,
        created_at=now,
        expires_at=Upload.expiry(now),
    )


@pytest.fixture
def unreachable(site: Site, now: datetime) -> Upload:
    """The first that is looked at; its file cannot be opened."""
    found = _row(site, 0, now + timedelta(seconds=1))
    folder = files.path_of(found.pk)
    folder.mkdir(parents=True)
    Upload.objects.filter(pk=found.pk).update(size_bytes=folder.stat().st_size)
    return found


@pytest.fixture
def without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are read-only are so for us."""
    opened = os.open

    def open_(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_RDWR and path.exists() and not path.stat().st_mode & stat.S_IWUSR:
            raise PermissionError(path)
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", open_)


async def _nothing(*_: object) -> None:
    raise AssertionError("it was passed on")


async def _no_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _fail(*_: object) -> None:
    raise RuntimeError("as a database might")


@pytest.mark.usefixtures("without_root")
def test_a_file_that_the_store_has_already_is_not_changed_and_can_be_handed_in(
    upload: Upload, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as trouble:
        trouble.setattr(intake, "queue_run", _fail)
        with pytest.raises(RuntimeError):
            service.finish(upload.pk)
    wrong = {"upload-piece-digest": f"xxh3-128=:{'A' * 22}==:;from=0"}  # which would cut what was not right
    door = app.ResumableUploads(_nothing)
    with pytest.raises(TusError) as refused:
        asyncio.run(door._receive(upload, upload.size_bytes, wrong, _no_more))
    assert (refused.value.status, files.offset_of(upload.pk)) == (410, upload.size_bytes)
    assert service.finish_complete() == 1
    upload.refresh_from_db()
    assert upload.state == Upload.State.ACCEPTED
    place = Submission.objects.get().artefact.path
    assert place.read_bytes() == archive.read_bytes()
    assert list(place.parent.iterdir()) == [place]
    assert files.offset_of(upload.pk) is None


@pytest.mark.usefixtures("unreachable")
def test_a_file_that_cannot_be_opened_keeps_no_other_from_its_check(upload: Upload) -> None:
    assert service.finish_complete() == 1
    upload.refresh_from_db()
    assert upload.state == Upload.State.ACCEPTED


def test_a_file_that_cannot_be_opened_keeps_no_other_from_its_end(
    unreachable: Upload, upload: Upload, now: datetime
) -> None:
    assert service.expire(now + timedelta(days=30)) == 1
    upload.refresh_from_db()
    assert upload.state == Upload.State.EXPIRED
    unreachable.refresh_from_db()
    assert unreachable.state == Upload.State.RECEIVING


def test_files_that_are_checked_leave_threads_to_those_that_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()
    begun: list[uuid.UUID] = []

    def finish(upload_id: uuid.UUID) -> None:
        begun.append(upload_id)
        may_end.wait(20)

    async def receive_meanwhile() -> None:
        door = app.ResumableUploads(_nothing)
        checks = [door._finish_soon(uuid.uuid4()) for _ in range(40)]  # the event loop has at most 32 threads
        try:
            await asyncio.sleep(0.2)
            await asyncio.wait_for(asyncio.to_thread(len, begun), 5)
            assert 1 <= len(begun) < len(checks)
        finally:
            may_end.set()
        await asyncio.wait(checks)
        assert len(begun) == len(checks)
        await asyncio.sleep(0)
        assert door._finishing == {}

    monkeypatch.setattr(service, "finish", finish)
    asyncio.run(receive_meanwhile())


def _half_is_checked(upload: Upload) -> int:
    """As a request leaves a file whose second half arrived and was never held against its digest."""
    content = files.path_of(upload.pk).read_bytes()
    half = len(content) // 2
    os.truncate(files.path_of(upload.pk), half)
    file = files.lock(upload.pk)
    assert file is not None
    with file:
        file.promise()
        file.catch_up()
        digest = xxhash.xxh3_128(content[:half]).digest()
        assert file.end_piece(file.begin_piece(), digest, size_bytes=half)
        file.append(memoryview(bytearray(len(content) - half)))
    return half


def test_a_last_piece_that_was_never_checked_is_not_handed_in(upload: Upload) -> None:
    half = _half_is_checked(upload)
    assert files.offset_of(upload.pk) == upload.size_bytes
    service.finish(upload.pk)
    upload.refresh_from_db()
    assert (upload.state, files.offset_of(upload.pk), files.checked_of(upload.pk)) == ("receiving", half, half)


def test_what_was_held_and_lost_a_part_can_be_sent_again(upload: Upload) -> None:
    half = _half_is_checked(upload)
    Upload.objects.filter(pk=upload.pk).update(state=Upload.State.HELD, detail="The quota is used.")
    service.finish(upload.pk)
    upload.refresh_from_db()
    assert (upload.state, upload.detail, files.offset_of(upload.pk)) == ("receiving", "", half)
