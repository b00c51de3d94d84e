"""The questions of the open suites with a run's answers. Those of hidden suites are not in the database at all, and the
query asks for open suites nevertheless."""

import uuid
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from tiltyard.competitions.models import Suite
from tiltyard.submissions.models import Run, Sample, TaskResult
from tiltyard.submissions.states import RunState
from tiltyard.web.access import visible_run

_PAGE_SAMPLES = 20
_SEARCH_CHARS = 100


def open_samples(run: Run) -> QuerySet[Sample]:
    """The run's samples from open suites, in the order of tasks and questions."""
    return Sample.objects.filter(
        task_result__suite_result__run=run, task_result__suite_result__suite__visibility=Suite.Visibility.OPEN
    ).order_by("task_result_id", "index")


@require_GET
def samples(request: HttpRequest, run_id: uuid.UUID) -> HttpResponse:
    """?task=ID&wrong=1&q=text&page=N narrows the list down."""
    run = visible_run(request, run_id)
    if run.state != RunState.SCORED:
        raise Http404
    found = open_samples(run).select_related("task_result")
    chosen_task = request.GET.get("task", "")
    wrong_only = request.GET.get("wrong") == "1"
    search = request.GET.get("q", "").replace("\x00", "")[:_SEARCH_CHARS].strip()
    if chosen_task.isascii() and chosen_task.isdigit():
        found = found.filter(task_result_id=int(chosen_task[:18]))
    if wrong_only:
        found = found.filter(score__lt=1)
    if search:
        found = found.filter(Q(prompt__icontains=search) | Q(answer__icontains=search) | Q(expected__icontains=search))
    context = {
        "run": run,
        "submission": run.submission,
        "competition": run.submission.competition,
        "page": Paginator(found, _PAGE_SAMPLES).get_page(request.GET.get("page")),
        "tasks": TaskResult.objects.filter(
            suite_result__run=run, suite_result__suite__visibility=Suite.Visibility.OPEN
        ),
        "chosen_task": chosen_task,
        "wrong_only": wrong_only,
        "search": search,
        "filters": urlencode({"task": chosen_task, "wrong": "1" if wrong_only else "", "q": search}),
    }
    return render(request, "run/samples.html", context)
