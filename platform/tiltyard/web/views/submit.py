"""The page on which a participant hands in an archive.

Its script sends a small file by XMLHttpRequest, to show progress, and asks for JSON; a large one goes in pieces to
/uploads/ (tiltyard.uploads). Without a script the same form is posted the ordinary way and the page comes back with the
message in place.
"""

from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Track
from tiltyard.competitions.reading import tracks_of
from tiltyard.submissions.intake import QuotaExceeded, StoreUnavailable, UploadRefused, UploadTooLarge, accept_upload
from tiltyard.submissions.models import Submission
from tiltyard.submissions.quota import quota_for
from tiltyard.submissions.uploads import form_bytes_max
from tiltyard.uploads import files, service
from tiltyard.uploads.models import Upload
from tiltyard.web.access import signed_in_user, visible_competition
from tiltyard.web.views.competition import frame

# What is larger goes in pieces: below this, a second request would cost more than sending a broken one again.
SINGLE_REQUEST_BYTES: Final = 8 << 20


@login_required
@require_http_methods(["GET", "POST"])
def submit(request: HttpRequest, slug: str) -> HttpResponse:
    competition = visible_competition(request, slug)
    user = signed_in_user(request)
    if user is None:
        raise Http404
    now = timezone.now()
    if request.method == "GET":
        return _form(request, competition, user, now)
    wants_json = request.accepts("application/json") and not request.accepts("text/html")
    try:
        submission = _accept(request, competition, user, now)
    except UploadRefused as refused:
        status = _status(refused)
        if wants_json:
            return JsonResponse({"detail": refused.message}, status=status)
        return _form(request, competition, user, now, error=refused.message, status=status)
    url = submission.runs.get().get_absolute_url()
    return JsonResponse({"url": url}, status=201) if wants_json else redirect(url)


@login_required
@require_POST
def discard(request: HttpRequest, slug: str, upload_id: UUID) -> HttpResponse:
    """Forget an unfinished upload and free its room."""
    service.terminate(_own_upload(request, slug, upload_id))
    return redirect("submit", slug)


@login_required
@require_POST
def hand_in(request: HttpRequest, slug: str, upload_id: UUID) -> HttpResponse:
    """Try once more to hand in a complete upload that the quota held back."""
    upload = _own_upload(request, slug, upload_id)
    service.finish(upload.pk)
    upload.refresh_from_db()
    return redirect(upload.submission.runs.get()) if upload.submission else redirect("submit", slug)


def _own_upload(request: HttpRequest, slug: str, upload_id: UUID) -> Upload:
    competition = visible_competition(request, slug)
    return get_object_or_404(Upload, pk=upload_id, owner=signed_in_user(request), competition=competition)


def _unfinished(competition: Competition, user: User) -> list[dict[str, object]]:
    uploads = Upload.objects.unfinished().filter(owner=user, competition=competition).select_related("track")
    return [{"upload": upload, "offset_bytes": files.offset_of(upload.pk) or 0} for upload in uploads]


def _accept(request: HttpRequest, competition: Competition, user: User, now: datetime) -> Submission:
    chosen = request.POST.get("track", "")
    track = next((track for track in competition.tracks.all() if track.slug == chosen), None)
    if track is None:
        raise UploadRefused("Choose the track in which the submission is to run.")
    file = request.FILES.get("file")
    if not isinstance(file, TemporaryUploadedFile):
        raise UploadRefused("Choose a file to upload: a .zip, .tar or .tar.gz archive.")
    return accept_upload(
        owner=user,
        competition=competition,
        track=track,
        path=Path(file.temporary_file_path()),
        filename=file.name or "upload",
        now=now,
    )


def _status(refused: UploadRefused) -> int:
    if isinstance(refused, UploadTooLarge):
        return 413
    if isinstance(refused, StoreUnavailable):
        return 503
    return 429 if isinstance(refused, QuotaExceeded) else 422


def _form(
    request: HttpRequest, competition: Competition, user: User, now: datetime, *, error: str = "", status: int = 200
) -> HttpResponse:
    tracks = tracks_of(competition)
    quota = quota_for(user, competition, now)
    context = frame(competition, "submit", now) | {
        "tracks": [{"track": track, "limits": track.sandbox_limits()} for track in tracks],
        "chosen": _chosen(request, tracks),
        "quota": quota,
        "refusal": quota.refusal(),
        "limit_bytes": competition.upload_limit_bytes,
        "form_limit_bytes": min(competition.upload_limit_bytes, form_bytes_max()),
        "single_request_bytes": SINGLE_REQUEST_BYTES,
        "unfinished": _unfinished(competition, user),
        "error": error,
    }
    return render(request, "competition/submit.html", context, status=status)


def _chosen(request: HttpRequest, tracks: list[Track]) -> str:
    """The track that was chosen before, so that an error costs nobody a second choice."""
    slug = request.POST.get("track") or request.GET.get("track")
    return slug or (tracks[0].slug if tracks else "")
