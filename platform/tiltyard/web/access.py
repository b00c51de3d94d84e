"""Who may see what. A thing that somebody may not see does not exist for them: 404, never 403."""

import uuid

from django.db.models import CharField, UUIDField
from django.http import Http404, HttpRequest
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition
from tiltyard.leaderboards.feedback import show_run
from tiltyard.statements import Given, Statement
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState

_SHOWN_WITH_A_RUN = ("submission__competition", "submission__track", "submission__owner", "ladder", "resources")
_RUN = Statement(  # the logs are asked for where they are shown
    lambda: (
        Run.objects.select_related(*_SHOWN_WITH_A_RUN)
        .defer("build_log", "server_log")
        .filter(pk=Given("run", UUIDField()))
    )
)
_COMPETITION = Statement(lambda: Competition.objects.filter(slug=Given("slug", CharField())))


def signed_in_user(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None


def is_staff(request: HttpRequest) -> bool:
    user = signed_in_user(request)
    return user is not None and user.is_staff


def visible_competition(request: HttpRequest, slug: str) -> Competition:
    """The competition, if it is public or an organiser asks; else Http404."""
    competition = _COMPETITION.first(slug=slug)
    if competition is None or not (competition.is_public or is_staff(request)):
        raise Http404
    return competition


def visible_run(request: HttpRequest, run_id: uuid.UUID) -> Run:
    """The run, if it is the user's own, or scored in a public competition, or an organiser asks; else Http404.

    Its columns hold only the scores that the user may see now.
    """
    run = _RUN.first(run=run_id)
    if run is None:
        raise Http404
    is_published = run.state == RunState.SCORED and run.submission.competition.is_public
    if is_published or may_see_private(request, run):
        return show_run(run, timezone.now(), is_organiser=is_staff(request))
    raise Http404


def private_run(request: HttpRequest, run_id: uuid.UUID) -> Run:
    """The run, if its logs and failures may be shown to the user; else Http404."""
    run = visible_run(request, run_id)
    if not may_see_private(request, run):
        raise Http404
    return run


def is_owner(request: HttpRequest, run: Run) -> bool:
    user = signed_in_user(request)
    return user is not None and run.submission.owner_id == user.pk


def may_see_private(request: HttpRequest, run: Run) -> bool:
    """Logs, failure messages and runs under way are for the owner and the organisers."""
    return is_owner(request, run) or is_staff(request)
