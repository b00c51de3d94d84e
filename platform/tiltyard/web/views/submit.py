"""The page on which a participant hands in an archive.

Its script sends the form by XMLHttpRequest, to show progress, and asks for JSON; without a script the same form is
posted the ordinary way and the page comes back with the message in place.
"""

from datetime import datetime
from pathlib import Path

from django.contrib.auth.decorators import login_required
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Track
from tiltyard.submissions.intake import QuotaExceeded, UploadRefused, UploadTooLarge, accept_upload
from tiltyard.submissions.models import Submission
from tiltyard.submissions.quota import quota_for
from tiltyard.web.access import signed_in_user, visible_competition
from tiltyard.web.views.competition import frame


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


def _accept(request: HttpRequest, competition: Competition, user: User, now: datetime) -> Submission:
    track = competition.tracks.filter(slug=request.POST.get("track", "")).first()
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
    return 429 if isinstance(refused, QuotaExceeded) else 422


def _form(
    request: HttpRequest, competition: Competition, user: User, now: datetime, *, error: str = "", status: int = 200
) -> HttpResponse:
    tracks = list(competition.tracks.all())
    quota = quota_for(user, competition, now)
    context = frame(competition, "submit", now) | {
        "tracks": [{"track": track, "limits": track.sandbox_limits()} for track in tracks],
        "chosen": _chosen(request, tracks),
        "quota": quota,
        "refusal": quota.refusal(),
        "limit_bytes": competition.upload_limit_bytes,
        "error": error,
    }
    return render(request, "competition/submit.html", context, status=status)


def _chosen(request: HttpRequest, tracks: list[Track]) -> str:
    """The track that was chosen before, so that an error costs nobody a second choice."""
    slug = request.POST.get("track") or request.GET.get("track")
    return slug or (tracks[0].slug if tracks else "")
