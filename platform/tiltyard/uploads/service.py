"""What the protocol's requests do to database and files; blocking, so called from threads.

    created ──> receiving ──(last byte)──> accepted: a submission, queued in the same transaction
                   │                       refused: the file cannot become one; it is removed
                   │                       held: nothing may be handed in now; it can be tried again
                   └──(nothing added for a while)──> expired

A complete file is checked at once. Should the server die meanwhile, the next one checks it when it starts, or when the
client asks.
"""

import errno
import logging
import shutil
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Track
from tiltyard.submissions.intake import (
    QuotaExceeded,
    StoreUnavailable,
    UploadRefused,
    accept_upload,
    check_may_submit,
)
from tiltyard.submissions.models import Submission
from tiltyard.submissions.uploads import too_large_message
from tiltyard.uploads import files
from tiltyard.uploads.models import Upload
from tiltyard.uploads.protocol import Target, TusError

logger = logging.getLogger(__name__)

DISK_RESERVE_BYTES: Final = 1 << 30  # of the disk that uploads may never fill: the database may be on it
INSUFFICIENT_STORAGE: Final = 507
_SETTLED_S: Final = 60
_DAMAGED: Final = "The file that arrived is not the one that was announced (its SHA-256 differs). Upload it again."
_LOST: Final = "The file was lost on the server before it was complete. Upload it again."


def create(owner: User, size_bytes: int, target: Target, now: datetime) -> Upload:
    """Make room for a file. Raises TusError with the reason when it would be refused anyway."""
    competition = Competition.objects.visible().filter(slug=target.competition).first()
    if competition is None:
        raise TusError(404, f"There is no competition {target.competition!r}.")
    track = _track(competition, target.track)
    if size_bytes == 0:
        raise TusError(400, "The file is empty.")
    if size_bytes > competition.upload_limit_bytes:
        raise TusError(413, too_large_message(size_bytes, competition.upload_limit_bytes))
    try:
        check_may_submit(owner, competition, now)
    except QuotaExceeded as refused:
        raise TusError(429, refused.message) from refused
    expire(now)
    with transaction.atomic():
        User.objects.select_for_update().get(pk=owner.pk)  # two requests at once must not both see the last place
        if Upload.objects.unfinished().filter(owner=owner).count() >= settings.UNFINISHED_UPLOADS_MAX:
            raise TusError(
                429,
                f"You have {settings.UNFINISHED_UPLOADS_MAX} unfinished uploads. Resume one, or stop one, "
                f"or wait: each ends {settings.UPLOAD_EXPIRY_S // 3600} hours after its last byte.",
            )
        _check_room(size_bytes)
        upload = Upload.objects.create(
            owner=owner,
            competition=competition,
            track=track,
            filename=target.filename[-255:],
            size_bytes=size_bytes,
            declared_sha256=target.sha256,
            created_at=now,
            expires_at=Upload.expiry(now),
        )
        files.create(upload.pk)
    return upload


def find(owner: User, upload_id: UUID) -> Upload:
    """The owner's upload; what is not theirs does not exist."""
    upload = Upload.objects.filter(pk=upload_id, owner=owner).first()
    if upload is None:
        raise TusError(404, "There is no such upload.")
    return upload


def touch(upload: Upload) -> None:
    """Something arrived: the upload lives on, until its new `expires_at`."""
    Upload.objects.filter(pk=upload.pk, state=Upload.State.RECEIVING).update(expires_at=upload.expires_at)


def terminate(upload: Upload) -> None:
    """Forget an unfinished upload; what was accepted or refused stays as it is."""
    if Upload.objects.filter(pk=upload.pk).unfinished().delete()[0]:
        files.remove(upload.pk)


def finish(upload_id: UUID) -> None:
    """Turn a complete file into a queued submission, once, or say why not; does nothing for any other.

    Several callers may do this at once, in several processes: the file's lock lets one of them through.
    """
    upload = _waiting(upload_id)
    if upload is None:
        return
    try:
        file = files.lock(upload_id)
    except FileNotFoundError:
        _end(upload, Upload.State.REFUSED, _LOST)
        return
    if file is None:
        return
    with file:
        upload = _waiting(upload_id)  # the one before us may have done it
        if upload is None or file.offset_bytes != upload.size_bytes:
            return
        sha256 = file.sha256()
        file.hold_to_promises()
        if file.offset_bytes != upload.size_bytes:  # a piece was lost or never checked: the client sends it again
            Upload.objects.filter(pk=upload_id).unfinished().update(state=Upload.State.RECEIVING, detail="")
            return
        if upload.declared_sha256 and sha256 != upload.declared_sha256:
            _end(upload, Upload.State.REFUSED, _DAMAGED)
        else:
            _hand_in(upload, sha256)
    if not Upload.objects.filter(pk=upload_id).unfinished().exists():
        files.remove(upload_id)


def finish_complete() -> int:
    """Finish the uploads whose server died between their last byte and their check; how many were looked at.

    One that cannot be looked at keeps nobody else's from it.
    """
    receiving = Upload.objects.filter(state=Upload.State.RECEIVING)
    looked_at = 0
    for upload in receiving:
        try:
            if files.offset_of(upload.pk) == upload.size_bytes:
                finish(upload.pk)
                looked_at += 1
        except DatabaseError:
            raise
        except Exception:
            logger.exception("the upload %s could not be finished", upload.pk)
    return looked_at


def sweep(now: datetime) -> int:
    """Remove files that no unfinished upload names: a server died after its last word; how many."""
    known = set(Upload.objects.unfinished().values_list("pk", flat=True))
    left = [path for path in files.all_paths() if files.upload_of(path) not in known]
    # A file is made in the transaction that makes its row, which another process may not have ended yet.
    old = [path for path in left if path.stat().st_mtime < now.timestamp() - _SETTLED_S]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def expire(now: datetime) -> int:
    """End the uploads that nothing was added to for too long, and free their room; how many.

    One whose file cannot be reached stays, and keeps no other from its end.
    """
    ended = 0
    for upload in Upload.objects.expired(now):
        try:
            ended += _expire(upload, now)
        except OSError:
            logger.exception("the upload %s could not be ended", upload.pk)
    return ended


def _expire(upload: Upload, now: datetime) -> bool:
    try:
        file = files.lock(upload.pk)
    except FileNotFoundError:
        file = None
    if file is not None:
        with file:
            if not Upload.objects.filter(pk=upload.pk).expired(now).exists():
                return False
    elif files.offset_of(upload.pk) is not None:  # somebody is writing: it is alive
        return False
    _end(upload, Upload.State.EXPIRED, "Nothing arrived for too long. Upload the file again.")
    files.remove(upload.pk)
    return True


def _waiting(upload_id: UUID) -> Upload | None:
    found = Upload.objects.select_related("owner", "competition", "track").filter(pk=upload_id)
    return found.unfinished().first()


def _hand_in(upload: Upload, sha256: str) -> None:
    def accepted(submission: Submission) -> None:
        upload.submission = submission
        _end(upload, Upload.State.ACCEPTED, "")

    try:
        with files.linked(upload.pk) as path:
            accept_upload(
                owner=upload.owner,
                competition=upload.competition,
                track=upload.track,
                path=path,
                filename=upload.filename,
                now=timezone.now(),
                sha256=sha256,
                in_transaction=accepted,
            )
    except (QuotaExceeded, StoreUnavailable) as refused:
        _end(upload, Upload.State.HELD, refused.message)
    except UploadRefused as refused:
        _end(upload, Upload.State.REFUSED, refused.message)


def _end(upload: Upload, state: Upload.State, detail: str) -> None:
    Upload.objects.filter(pk=upload.pk).unfinished().update(state=state, detail=detail, submission=upload.submission)


def _track(competition: Competition, slug: str | None) -> Track:
    tracks = list(competition.tracks.all())
    chosen = next((track for track in tracks if slug is None or track.slug == slug), None)
    if chosen is None:
        known = ", ".join(track.slug for track in tracks)
        raise TusError(404, f"The competition {competition.slug} has no track {slug!r}. Its tracks: {known}.")
    return chosen


def _check_room(size_bytes: int) -> None:
    """Room for what has been promised to others is not free."""
    promised = sum(
        max(0, upload.size_bytes - (files.offset_of(upload.pk) or 0)) for upload in Upload.objects.unfinished()
    )
    free_bytes = shutil.disk_usage(settings.UPLOAD_DIR).free - promised - DISK_RESERVE_BYTES
    if size_bytes > free_bytes:
        logger.error("no room for an upload of %d bytes: %d are free", size_bytes, max(free_bytes, 0))
        raise TusError(
            INSUFFICIENT_STORAGE, "The server has no room for this file now. The organisers must free some; try later."
        )


def is_disk_full(error: OSError) -> bool:
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
