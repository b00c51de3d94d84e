"""Competitions, their boards and open suites, and handing in a submission."""

import logging
from pathlib import Path
from typing import Annotated, Final, cast

from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db.models import Prefetch
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import conditional_page
from ninja import File, Form, Router, Status, UploadedFile
from ninja.decorators import decorate_view
from ninja.errors import HttpError
from pydantic import Field

from tiltyard.api import documents, schemas
from tiltyard.api.auth import AUTH, caller
from tiltyard.competitions.models import Competition, Phase, Suite, Track
from tiltyard.leaderboards.kept import kept_board
from tiltyard.submissions.intake import (
    QuotaExceeded,
    StoreUnavailable,
    UploadRefused,
    UploadTooLarge,
    accept_upload,
)

logger = logging.getLogger(__name__)
router = Router(tags=["competitions"])

_BOARD_LIMIT: Final = 1000  # entries of a board that are given to who names no other number


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


@router.get(
    "/competitions/{slug}/leaderboard",
    response={200: schemas.LeaderboardOut, 304: None, 404: schemas.ErrorOut},
    url_name="leaderboard",
)
@decorate_view(conditional_page)
def competition_leaderboard(
    request: HttpRequest,  # noqa: ARG001
    slug: str,
    track: str | None = None,
    limit: Annotated[int, Field(ge=1, le=5000)] = _BOARD_LIMIT,
    offset: Annotated[int, Field(ge=0)] = 0,
) -> HttpResponse:
    """The board of one track, by default of the first, from the entry at `offset` on.

    It has an ETag: who sends it back in `If-None-Match` gets 304 while the board is the same.
    """
    found = _competition(slug)
    chosen = _track(found, track)
    kept = kept_board(found, chosen, now=timezone.now())

    def make() -> str:
        return documents.leaderboard_out(kept.board, limit, offset).model_dump_json()

    # As it is for everybody alike, the text is kept with the board; only one, or callers could fill the memory with
    # others, of megabytes each.
    text = kept.made("api", make) if (limit, offset) == (_BOARD_LIMIT, 0) else make()
    return HttpResponse(text, content_type="application/json; charset=utf-8")


@router.get("/competitions/{slug}/suites/{name}/archive", url_name="suite_archive")
def suite_archive(request: HttpRequest, slug: str, name: str) -> FileResponse:  # noqa: ARG001
    """An open suite's files as .tar.gz; of a hidden suite there are none."""
    suite = get_object_or_404(
        Suite, competition=_competition(slug), name=_askable(name), is_active=True, visibility=Suite.Visibility.OPEN
    )
    filename = f"{suite.name}-{suite.version}.tar.gz"
    try:
        content = suite.archive.open("rb")
    except FileNotFoundError as error:
        logger.error("a suite's archive is missing: %s", error)
        raise HttpError(404, "The suite's files are not on this server. Tell the organisers.") from None
    return FileResponse(content, as_attachment=True, filename=filename)


@router.post(
    "/competitions/{slug}/submissions",
    auth=AUTH,
    response={
        201: schemas.SubmittedOut,
        404: schemas.ErrorOut,
        413: schemas.ErrorOut,
        422: schemas.ErrorOut,
        429: schemas.ErrorOut,
        503: schemas.ErrorOut,
    },
)
def submit(
    request: HttpRequest, slug: str, file: File[UploadedFile], track: Form[str | None] = None
) -> Status[schemas.SubmittedOut]:
    """Hand in an archive with a Dockerfile, an image archive, or a tiltyard.yaml that names an image; queued at once.

    The image is named as `image: registry.example/name@sha256:…`, in one of the competition's registries.
    """
    found = _competition(slug)
    chosen = _track(found, track)
    now = timezone.now()
    try:
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
    except StoreUnavailable as refused:
        raise HttpError(503, refused.message) from refused
    except QuotaExceeded as refused:
        raise HttpError(429, refused.message) from refused
    except UploadRefused as refused:
        raise HttpError(422, refused.message) from refused
    run_id = submission.runs.values_list("pk", flat=True).get()
    url = documents.absolute(reverse("run", args=[run_id]))
    return Status(201, schemas.SubmittedOut(submission_id=submission.pk, run_id=run_id, url=url))


def _askable(text: str) -> str:
    """A text that a database can be asked for: none in it has the character NUL, and PostgreSQL fails at one."""
    if "\0" in text:
        raise Http404
    return text


def _competition(slug: str) -> Competition:
    return get_object_or_404(Competition.objects.visible(), slug=_askable(slug))


def _track(competition: Competition, slug: str | None) -> Track:
    tracks = list(competition.tracks.all())
    chosen = next((track for track in tracks if slug is None or track.slug == slug), None)
    if chosen is None:
        known = ", ".join(track.slug for track in tracks)
        raise HttpError(404, f"The competition {competition.slug} has no track {slug!r}. Its tracks: {known}.")
    return chosen
