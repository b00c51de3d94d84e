"""Competitions, their boards and open suites, and handing in a submission."""

from pathlib import Path
from typing import cast

from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db.models import Prefetch
from django.http import FileResponse, HttpRequest
from django.shortcuts import get_object_or_404
from django.utils import timezone
from ninja import File, Form, Router, Status, UploadedFile
from ninja.errors import HttpError

from tiltyard.api import documents, schemas
from tiltyard.api.auth import AUTH, caller
from tiltyard.competitions.models import Competition, Phase, Suite, Track
from tiltyard.leaderboards.board import leaderboard
from tiltyard.submissions.intake import (
    QuotaExceeded,
    UploadRefused,
    UploadTooLarge,
    accept_upload,
    check_may_submit,
)

router = Router(tags=["competitions"])


@router.get("/competitions", response=list[schemas.CompetitionOut])
def competitions(request: HttpRequest) -> list[schemas.CompetitionOut]:  # noqa: ARG001
    """Every public competition."""
    now = timezone.now()
    running = Phase.objects.filter(starts_at__lte=now, ends_at__gt=now).order_by("order")
    found = Competition.objects.visible().prefetch_related(Prefetch("phases", running))
    return [documents.competition_out(one, next(iter(one.phases.all()), None)) for one in found]


@router.get("/competitions/{slug}", response={200: schemas.CompetitionDetailOut, 404: schemas.ErrorOut})
def competition(request: HttpRequest, slug: str) -> schemas.CompetitionDetailOut:  # noqa: ARG001
    """One competition: what a participant and a local evaluation need to know."""
    found = _competition(slug)
    return documents.competition_detail_out(found, found.current_phase(timezone.now()))


@router.get("/competitions/{slug}/leaderboard", response={200: schemas.LeaderboardOut, 404: schemas.ErrorOut})
def competition_leaderboard(request: HttpRequest, slug: str, track: str | None = None) -> schemas.LeaderboardOut:  # noqa: ARG001
    """The board of one track, by default of the first."""
    found = _competition(slug)
    chosen = _track(found, track)
    board = leaderboard(found, chosen, now=timezone.now())
    return schemas.LeaderboardOut(
        competition=found.slug,
        track=chosen.slug,
        made_at=board.made_at,
        entries=[documents.entry_out(entry) for entry in board.entries],
    )


@router.get("/competitions/{slug}/suites/{name}/archive", url_name="suite_archive")
def suite_archive(request: HttpRequest, slug: str, name: str) -> FileResponse:  # noqa: ARG001
    """An open suite's files as .tar.gz; of a hidden suite there are none."""
    suite = get_object_or_404(
        Suite, competition=_competition(slug), name=name, is_active=True, visibility=Suite.Visibility.OPEN
    )
    filename = f"{suite.name}-{suite.version}.tar.gz"
    return FileResponse(suite.archive.open("rb"), as_attachment=True, filename=filename)


@router.post(
    "/competitions/{slug}/submissions",
    auth=AUTH,
    response={
        201: schemas.SubmittedOut,
        404: schemas.ErrorOut,
        413: schemas.ErrorOut,
        422: schemas.ErrorOut,
        429: schemas.ErrorOut,
    },
)
def submit(
    request: HttpRequest, slug: str, file: File[UploadedFile], track: Form[str | None] = None
) -> Status[schemas.SubmittedOut]:
    """Hand in an archive with a Dockerfile, or an image archive; it is queued at once."""
    found = _competition(slug)
    chosen = _track(found, track)
    now = timezone.now()
    try:
        check_may_submit(caller(request), found, now)
        submission = accept_upload(
            owner=caller(request),
            competition=found,
            track=chosen,
            # The settings allow only the upload handler that writes to disk.
            path=Path(cast(TemporaryUploadedFile, file).temporary_file_path()),
            filename=file.name or "upload",
            now=now,
        )
    except UploadTooLarge as refused:
        raise HttpError(413, refused.message) from refused
    except QuotaExceeded as refused:
        raise HttpError(429, refused.message) from refused
    except UploadRefused as refused:
        raise HttpError(422, refused.message) from refused
    run = submission.runs.get()
    url = documents.absolute(run.get_absolute_url())
    return Status(201, schemas.SubmittedOut(submission_id=submission.pk, run_id=run.pk, url=url))


def _competition(slug: str) -> Competition:
    return get_object_or_404(Competition.objects.visible(), slug=slug)


def _track(competition: Competition, slug: str | None) -> Track:
    tracks = list(competition.tracks.all())
    chosen = next((track for track in tracks if slug is None or track.slug == slug), None)
    if chosen is None:
        known = ", ".join(track.slug for track in tracks)
        raise HttpError(404, f"The competition {competition.slug} has no track {slug!r}. Its tracks: {known}.")
    return chosen
