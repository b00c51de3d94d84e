"""From an uploaded file to a queued run.

Everything that can be refused without an engine is refused here, while the participant still looks at the page.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from django.db import transaction

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Phase, Track
from tiltyard.submissions.models import Artefact, Run, Submission
from tiltyard.submissions.quota import quota_for
from tiltyard.submissions.refusals import count_refusal, too_many_refusals
from tiltyard.submissions.stores import StoreError, store
from tiltyard.submissions.uploads import too_large_message
from tiltyard_sandbox import dockerfile
from tiltyard_sandbox.archives import BuildContext, read_upload
from tiltyard_sandbox.image_archive import ImageArchive
from tiltyard_sandbox.manifest import SubmissionManifest
from tiltyard_sandbox.references import NamedImage
from tiltyard_sandbox.verdicts import SubmissionFault

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_KINDS = {
    BuildContext: Artefact.Kind.DOCKER_CONTEXT,
    ImageArchive: Artefact.Kind.IMAGE_ARCHIVE,
    NamedImage: Artefact.Kind.IMAGE_REFERENCE,
}
_FILENAME_CHARS = 255


class UploadRefused(Exception):  # noqa: N818 - names the event
    """The file cannot become a submission; `message` is for the participant and says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class QuotaExceeded(UploadRefused):
    """Nothing may be handed in now, whatever the file."""


class UploadTooLarge(UploadRefused):
    """The file is over the competition's limit."""


class StoreUnavailable(UploadRefused):
    """The file is good, but cannot be kept now."""


def accept_upload(
    *,
    owner: User,
    competition: Competition,
    track: Track,
    path: Path,
    filename: str,
    now: datetime,
    is_baseline: bool = False,
    sha256: str | None = None,
    in_transaction: Callable[[Submission], None] | None = None,
) -> Submission:
    """Check a file, keep it, and queue its run; the file is moved away from `path`.

    Baselines, which only organisers hand in, are free of quotas. Raises UploadRefused, with the file left where it is.

    Args:
        sha256: Of the file, from a caller that has read all of it already.
        in_transaction: Called with the submission in the transaction that creates it.
    """
    if track.competition_id != competition.pk:
        raise UploadRefused(f"The competition {competition.title} has no such track.")
    phase = _open_phase(competition, now)
    if not is_baseline:
        check_may_submit(owner, competition, now, phase)
    size_bytes = path.stat().st_size
    try:
        if size_bytes > competition.upload_limit_bytes:
            raise UploadTooLarge(too_large_message(size_bytes, competition.upload_limit_bytes))
        kind, manifest = _inspect(path, competition, track)
    except UploadRefused:
        count_refusal(owner, now)
        raise
    sha256 = sha256 or _sha256(path)
    _announce(sha256, kind, size_bytes, now)
    _kept(store().send_ahead, path, sha256)
    with transaction.atomic():
        # Two uploads at once must not both see the last free place: the owner's row is the lock.
        User.objects.select_for_update().values_list("pk").get(pk=owner.pk)
        if not is_baseline and (refusal := quota_for(owner, competition, now, phase).refusal()):
            raise QuotaExceeded(refusal)
        artefact = _announce(sha256, kind, size_bytes, now)
        _kept(store().put, path, sha256)
        submission = Submission.objects.create(
            competition=competition,
            track=track,
            phase=phase,
            owner=owner,
            artefact=artefact,
            name=manifest.name,
            manifest=asdict(manifest),
            original_filename=Path(filename.replace("\0", "")).name[-_FILENAME_CHARS:],
            is_baseline=is_baseline,
            created_at=now,
        )
        queue_run(submission, now)
        if in_transaction is not None:
            in_transaction(submission)
    return submission


def _open_phase(competition: Competition, now: datetime) -> Phase:
    phase = competition.current_phase(now)
    if phase is None:
        raise QuotaExceeded("The competition takes no submissions now: no phase is open. See its dates.")
    return phase


def check_may_submit(owner: User, competition: Competition, now: datetime, phase: Phase | None = None) -> None:
    """Raise QuotaExceeded with the reason when the owner may hand in nothing at `now`, in a phase if it is known."""
    refusal = quota_for(owner, competition, now, phase).refusal() or too_many_refusals(owner, now)
    if refusal:
        raise QuotaExceeded(refusal)


def queue_run(submission: Submission, now: datetime, message: str = "Accepted and queued.") -> Run:
    """Create a queued run inside the caller's transaction; its message is sent when that commits."""
    from tiltyard.worker.publishing import publish  # noqa: PLC0415 - Celery only where something is queued

    run = Run.enqueue(submission, now, message)
    transaction.on_commit(lambda: publish(run))
    return run


def _inspect(path: Path, competition: Competition, track: Track) -> tuple[Artefact.Kind, SubmissionManifest]:
    bases = competition.base_images
    try:
        upload = read_upload(path, unpacked_bytes_max=track.sandbox_limits().image_bytes_max)
        if isinstance(upload, BuildContext):
            dockerfile.check(upload.dockerfile, allowed_bases=bases, base_args={"BASE": bases[0]})
        elif isinstance(upload, NamedImage):
            upload.reference.require_allowed(competition.registries)
    except SubmissionFault as fault:
        raise UploadRefused(fault.message) from fault
    manifest = upload.manifest
    if manifest.base_model not in competition.allowed_base_models:
        allowed = ", ".join(competition.allowed_base_models)
        raise UploadRefused(
            f"tiltyard.yaml: the base model {manifest.base_model!r} is not allowed here. Allowed: {allowed}."
        )
    return _KINDS[type(upload)], manifest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _announce(sha256: str, kind: Artefact.Kind, size_bytes: int, now: datetime) -> Artefact:
    """The file's row, from before the file is in the store: what has a row that is needed is never collected."""
    row = Artefact(sha256=sha256, kind=kind, size_bytes=size_bytes, needed_at=now)
    (artefact,) = Artefact.objects.bulk_create(
        [row], update_conflicts=True, unique_fields=["sha256"], update_fields=["needed_at"]
    )
    return artefact


def _kept(keep: Callable[[Path, str], None], path: Path, sha256: str) -> None:
    try:
        keep(path, sha256)
    except StoreError as error:
        logger.exception("an upload cannot be kept")
        raise StoreUnavailable("The site cannot store files now. Try again later.") from error
