"""A competition's pages: overview, tasks, rules, dates, and the participant's own submissions there."""

from collections.abc import Sequence
from datetime import datetime

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from tiltyard.competitions.models import Competition, Phase
from tiltyard.competitions.reading import active_suites_of, pages_of, phases_of, tracks_of
from tiltyard.submissions.quota import quota_for
from tiltyard.web.access import signed_in_user, visible_competition
from tiltyard.web.suite_table import families, ranking_shares, sample_questions
from tiltyard.web.views.submissions import own_runs, page_of_runs

OVERVIEW, RULES = "overview", "rules"


def frame(
    competition: Competition, tab: str, now: datetime, phases: Sequence[Phase] | None = None
) -> dict[str, object]:
    """What the band above every page of a competition needs, and as `page` the bundle's page of the tab's name."""
    phases = phases_of(competition) if phases is None else phases
    pages = {page.slug: page for page in pages_of(competition)}
    return {
        "competition": competition,
        "tab": tab,
        "now": now,
        "phases": phases,
        "phase": next((phase for phase in phases if phase.starts_at <= now < phase.ends_at), None),
        "next_phase": min(
            (phase for phase in phases if phase.starts_at > now), key=lambda p: p.starts_at, default=None
        ),
        "page": pages.get(tab),
        "more_pages": [page for slug, page in pages.items() if slug not in {OVERVIEW, RULES}],
    }


def overview(request: HttpRequest, slug: str) -> HttpResponse:
    competition = visible_competition(request, slug)
    context = frame(competition, OVERVIEW, timezone.now())
    return render(request, "competition/overview.html", context | {"tracks": _tracks(competition)})


def tasks(request: HttpRequest, slug: str) -> HttpResponse:
    competition = visible_competition(request, slug)
    suites = active_suites_of(competition)
    context = frame(competition, "tasks", timezone.now())
    return render(
        request,
        "competition/tasks.html",
        context
        | {
            "suites": suites,
            "shares": ranking_shares(suites),
            "families": families(suites),
            "questions": sample_questions(suites),
        },
    )


def rules(request: HttpRequest, slug: str) -> HttpResponse:
    competition = visible_competition(request, slug)
    context = frame(competition, RULES, timezone.now())
    return render(request, "competition/rules.html", context | {"tracks": _tracks(competition)})


def dates(request: HttpRequest, slug: str) -> HttpResponse:
    competition = visible_competition(request, slug)
    return render(request, "competition/dates.html", frame(competition, "dates", timezone.now()))


def page(request: HttpRequest, slug: str, page_slug: str) -> HttpResponse:
    """A page that the bundle brings beside overview and rules."""
    competition = visible_competition(request, slug)
    if page_slug in {OVERVIEW, RULES}:
        raise Http404  # they have addresses of their own
    context = frame(competition, page_slug, timezone.now())
    if context["page"] is None:
        raise Http404
    return render(request, "competition/page.html", context)


@login_required
def my_submissions(request: HttpRequest, slug: str) -> HttpResponse:
    competition = visible_competition(request, slug)
    user = signed_in_user(request)
    if user is None:
        raise Http404
    now = timezone.now()
    page = page_of_runs(own_runs(user).filter(submission__competition=competition), request.GET.get("page"), now)
    context = frame(competition, "submissions", now)
    return render(
        request,
        "competition/submissions.html",
        context | {"page": page, "runs": page.object_list, "quota": quota_for(user, competition, now)},
    )


def _tracks(competition: Competition) -> list[dict[str, object]]:
    return [{"track": track, "limits": track.sandbox_limits()} for track in tracks_of(competition)]
