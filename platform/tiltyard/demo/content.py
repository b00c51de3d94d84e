"""What the demo puts into the database: two accounts, the competition, the baselines. Doing it again adds nothing."""

import tempfile
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.cli.packing import pack_directory
from tiltyard.competitions.bundle import import_bundle
from tiltyard.competitions.models import Competition, Track
from tiltyard.demo.place import REPOSITORY_DIR
from tiltyard.leaderboards.keys import ranking_basis
from tiltyard.submissions.intake import accept_upload, queue_run
from tiltyard.submissions.models import Run, Submission
from tiltyard.submissions.states import ACTIVE, RunState
from tiltyard.worker.execution import queue_again
from tiltyard.worker.strays import sweep_strays
from tiltyard_sandbox.engine import connect

BUNDLE_DIR = REPOSITORY_DIR / "competitions" / "demo"
BASELINES_DIR = REPOSITORY_DIR / "baselines" / "submissions"
BASELINES = ("base", "lora", "memoriser")


def ensure_users(passwords: dict[str, str]) -> User:
    """The organiser, who may use the admin, and a participant; returns the organiser."""
    for name, password in passwords.items():
        is_organiser = name == "organiser"
        user, _ = User.objects.get_or_create(
            username=name,
            defaults={"email": f"{name}@example.org", "is_staff": is_organiser, "is_superuser": is_organiser},
        )
        if not user.check_password(password):
            user.set_password(password)
            user.save(update_fields=["password"])
    return User.objects.get(username="organiser")


def import_competition() -> Competition:
    """The demo competition from its bundle; its hidden suite is drawn from this installation's own secret."""
    return import_bundle(BUNDLE_DIR, secrets_dir=settings.SECRETS_DIR)


def ensure_baselines(organiser: User, competition: Competition) -> list[Run]:
    """Hand in each baseline once; returns the run of each that counts, or will."""
    track = competition.tracks.order_by("order").get(needs_gpu=False)
    return [_ensure_baseline(organiser, track, BASELINES_DIR / name) for name in BASELINES]


def settle() -> None:
    """Queue again what a worker that is gone held, and remove its containers. Call it while no worker runs.

    Stopping the demo is no fault of the platform: however often it is stopped, the run is tried again.
    """
    for run in Run.objects.filter(state__in=ACTIVE):
        queue_again(run, "The demo was stopped in mid-run; the run is queued again.")
    client = connect()
    try:
        sweep_strays(client)
    finally:
        client.close()


def _ensure_baseline(organiser: User, track: Track, folder: Path) -> Run:
    with tempfile.TemporaryDirectory(prefix="tiltyard-demo-", dir=settings.UPLOAD_DIR) as scratch:
        # The same files pack to the same bytes, so the artefact's hash says whether this baseline was handed in.
        packed = pack_directory(folder, Path(scratch) / f"{folder.name}.tar.gz")
        submission = Submission.objects.filter(
            artefact__sha256=packed.sha256, track=track, is_baseline=True, owner=organiser
        ).first()
        if submission is None:
            submission = accept_upload(
                owner=organiser,
                competition=track.competition,
                track=track,
                path=packed.path,
                filename=packed.path.name,
                now=timezone.now(),
                is_baseline=True,
            )
    run = submission.runs.latest("queued_at")
    if not run.is_final or _counts(run):
        return run
    return queue_run(submission, timezone.now(), "Queued again: the last run gave no score for the present suites.")


def _counts(run: Run) -> bool:
    return run.state == RunState.SCORED and run.ranking_basis == ranking_basis(run.submission.competition)
