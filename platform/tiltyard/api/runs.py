"""A participant's submissions and runs. A stranger's run is as good as none: 404."""

import uuid
from typing import Annotated, Any

from django.db.models import Prefetch
from django.http import Http404, HttpRequest
from django.utils import timezone
from ninja import Router
from ninja.errors import HttpError
from pydantic import Field

from tiltyard.api import documents, schemas
from tiltyard.api.auth import AUTH, caller
from tiltyard.leaderboards.feedback import shown_results
from tiltyard.submissions.models import Run, Submission

router = Router(tags=["runs"], auth=AUTH)

_EVENTS_MAX = 500
_EVENT_ID_MAX = 2**63 - 1  # what a column can hold
_OFFSET_MAX = 2**31 - 1
_LISTED = Run.objects.select_related("submission__competition", "submission__track", "ladder").defer(
    "build_log", "server_log"
)


@router.get("/submissions", response=list[schemas.SubmissionOut])
def submissions(
    request: HttpRequest,
    limit: Annotated[int, Field(ge=1, le=500)] = 100,
    offset: Annotated[int, Field(ge=0, le=_OFFSET_MAX)] = 0,
) -> list[schemas.SubmissionOut]:
    """The caller's own, newest first."""
    found = (
        Submission.objects.filter(owner=caller(request))
        .select_related("competition", "track")
        .prefetch_related(Prefetch("runs", _LISTED))
    )
    return documents.submissions_out(list(found[offset : offset + limit]))


@router.get("/runs/{run_id}", response={200: schemas.RunDetailOut, 404: schemas.ErrorOut})
def run(request: HttpRequest, run_id: uuid.UUID) -> schemas.RunDetailOut:
    """One run with its verdict, progress and scores."""
    return documents.run_detail_out(_run(request, run_id), is_organiser=caller(request).is_staff)


@router.get("/runs/{run_id}/events", response={200: list[schemas.EventOut], 404: schemas.ErrorOut})
def events(
    request: HttpRequest, run_id: uuid.UUID, after: Annotated[int, Field(ge=0, le=_EVENT_ID_MAX)] = 0
) -> list[schemas.EventOut]:
    """The run's history after the event with this id, oldest first."""
    found = _run(request, run_id).events.filter(id__gt=after)[:_EVENTS_MAX]
    return [schemas.EventOut.from_orm(event) for event in found]


@router.get("/runs/{run_id}/logs", response={200: schemas.LogsOut, 404: schemas.ErrorOut})
def logs(request: HttpRequest, run_id: uuid.UUID) -> schemas.LogsOut:
    """The build's log, and what the server printed on open suites."""
    found = _run(request, run_id)
    return schemas.LogsOut(build_log=found.build_log, server_log=found.server_log)


@router.get("/runs/{run_id}/manifests", response={200: list[dict[str, Any]], 404: schemas.ErrorOut})
def manifests(request: HttpRequest, run_id: uuid.UUID) -> list[dict[str, Any]]:
    """The signed manifest of each suite's score; empty before the run is scored, without withheld hidden scores."""
    found = shown_results(_run(request, run_id), timezone.now(), is_organiser=caller(request).is_staff)
    return [result.signed for result in found if result.signed]


@router.post("/runs/{run_id}/cancel", response={200: schemas.CancelOut, 404: schemas.ErrorOut, 409: schemas.ErrorOut})
def cancel(request: HttpRequest, run_id: uuid.UUID) -> schemas.CancelOut:
    """Stop the run: at once while it is queued, within seconds while it is under way."""
    found = _run(request, run_id)
    if not found.request_cancel(timezone.now()):
        found.refresh_from_db()
        raise HttpError(409, f"The run is over already: {found.get_state_display().lower()}.")
    return schemas.CancelOut(state=found.state, cancel_requested=found.cancel_requested_at is not None)


def _run(request: HttpRequest, run_id: uuid.UUID) -> Run:
    user = caller(request)
    runs = Run.objects.select_related("submission__competition", "submission__track", "submission__owner")
    found = runs.filter(pk=run_id).first()
    if found is None or not (user.is_staff or found.submission.owner_id == user.pk):
        raise Http404
    return found
