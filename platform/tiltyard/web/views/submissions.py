"""All that a participant has handed in."""

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from tiltyard.accounts.models import User
from tiltyard.submissions.models import Run, RunQuerySet
from tiltyard.web.access import signed_in_user

_PAGE_RUNS = 25


def own_runs(user: User) -> RunQuerySet:
    """The user's runs, newest first, with what a row shows and without the logs."""
    return (
        Run.objects.filter(submission__owner=user)
        .select_related("submission__competition", "submission__track")
        .defer("build_log", "server_log")
    )


@login_required
def submissions(request: HttpRequest) -> HttpResponse:
    user = signed_in_user(request)
    runs = own_runs(user) if user else Run.objects.none()
    page = Paginator(runs, _PAGE_RUNS).get_page(request.GET.get("page"))
    return render(request, "account/submissions.html", {"page": page})
