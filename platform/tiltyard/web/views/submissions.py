"""All that a participant has handed in."""

from datetime import datetime

from django.contrib.auth.decorators import login_required
from django.core.paginator import Page, Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.leaderboards.feedback import show_runs
from tiltyard.submissions.models import Run, RunQuerySet
from tiltyard.web.access import signed_in_user

_PAGE_RUNS = 25


def own_runs(user: User) -> RunQuerySet:
    """The user's runs, newest first, with what a row shows and without the logs; show them with `show_runs`."""
    return (
        Run.objects.filter(submission__owner=user)
        .select_related("submission__competition", "submission__track", "ladder")
        .defer("build_log", "server_log")
    )


def page_of_runs(runs: RunQuerySet, number: str | None, now: datetime) -> Page[Run]:
    """One page of them, with the scores that may be shown."""
    page = Paginator(runs, _PAGE_RUNS).get_page(number)
    page.object_list = show_runs(page.object_list, now)
    return page


@login_required
def submissions(request: HttpRequest) -> HttpResponse:
    user = signed_in_user(request)
    runs = own_runs(user) if user else Run.objects.none()
    page = page_of_runs(runs, request.GET.get("page"), timezone.now())
    return render(request, "account/submissions.html", {"page": page})
