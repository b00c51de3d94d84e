"""A run's page: the stages moving while it is under way, then its results, and for the owner its logs."""

import uuid
from datetime import datetime

from django.contrib import messages
from django.db.models import Exists, OuterRef, Q, UUIDField
from django.db.models.fields.json import KeyTransform
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from tiltyard.leaderboards.board import is_flagged
from tiltyard.leaderboards.feedback import shown_among, shown_results
from tiltyard.leaderboards.figures import resources_of
from tiltyard.statements import Given, Statement
from tiltyard.submissions.models import Run, RunEvent, Sample, SuiteResult, TaskResult
from tiltyard.submissions.states import RunState
from tiltyard.web.access import is_staff, may_see_private, private_run, visible_run
from tiltyard.web.suite_results import shown_suites
from tiltyard.web.timeline import elapsed_s, stages
from tiltyard.web.verdicts import verdict_of

STOP_POLLING = 286  # htmx: take the content, ask no more
_RUN = Given("run", UUIDField())
_EVENTS = Statement(lambda: RunEvent.objects.filter(run=_RUN))
_RESULTS = Statement(
    lambda: (
        SuiteResult.objects.filter(run=_RUN)
        .select_related("suite")
        .defer("result")
        .annotate(
            timing=KeyTransform("timing", "result"),  # the only part of the whole document that the page shows
            has_samples=Exists(Sample.objects.filter(task_result__suite_result=OuterRef("pk"))),
        )
    )
)
_TASKS = Statement(lambda: TaskResult.objects.filter(suite_result__run=_RUN).defer("item_scores"))


@require_GET
def run_page(request: HttpRequest, run_id: uuid.UUID) -> HttpResponse:
    run = visible_run(request, run_id)
    context = _live(request, run, timezone.now()) | _results(request, run)
    return render(request, "run/page.html", context)


@require_GET
def live(request: HttpRequest, run_id: uuid.UUID) -> HttpResponse:
    """The part of the page that moves, asked for every second until the run is over."""
    run = visible_run(request, run_id)
    # A screen reader hears of a stage when it changes, not every second.
    context = _live(request, run, timezone.now()) | {"announce": request.GET.get("seen") != run.state}
    response = render(request, "run/_live.html", context)
    if run.is_final:
        response.status_code = STOP_POLLING
        response.headers["HX-Trigger"] = "run-finished"
    return response


@require_GET
def results(request: HttpRequest, run_id: uuid.UUID) -> HttpResponse:
    """Scores and verdict, asked for once when the run is over."""
    run = visible_run(request, run_id)
    return render(request, "run/_results.html", _live(request, run, timezone.now()) | _results(request, run))


@require_GET
def logs(request: HttpRequest, run_id: uuid.UUID) -> HttpResponse:
    """The build and the server log: a page of its own, or the fragment inside the run's page."""
    run = private_run(request, run_id)
    if not request.headers.get("HX-Request"):
        context = {"run": run, "submission": run.submission, "competition": run.submission.competition}
        return render(request, "run/logs.html", context)
    status = STOP_POLLING if run.is_final else 200
    return render(request, "run/_logs.html", {"run": run}, status=status)


@require_GET
def manifest(request: HttpRequest, run_id: uuid.UUID, suite: str) -> JsonResponse:
    """The signed manifest of one suite's score, for whoever may see the run."""
    results = shown_results(visible_run(request, run_id), timezone.now(), is_organiser=is_staff(request))
    found = get_object_or_404(results.exclude(signed=None), suite__name=suite)
    response = JsonResponse(found.signed, json_dumps_params={"indent": 2})
    response.headers["Content-Disposition"] = f'attachment; filename="{found.suite.name}.manifest.json"'
    return response


@require_POST
def cancel(request: HttpRequest, run_id: uuid.UUID) -> HttpResponse:
    run = private_run(request, run_id)
    if run.request_cancel(timezone.now()):
        messages.info(request, "The run is being cancelled. Its containers stop within seconds.")
    else:
        messages.info(request, "The run was already over, so there was nothing to cancel.")
    return redirect(run)


def _live(request: HttpRequest, run: Run, now: datetime) -> dict[str, object]:
    events = _EVENTS.ask(run=run.pk)
    return {
        "run": run,
        "submission": run.submission,
        "competition": run.submission.competition,
        "stages": stages(run, events, now),
        "events": events,
        "elapsed_s": elapsed_s(run, now),
        "is_private_view": may_see_private(request, run),
        "may_cancel": may_see_private(request, run) and not run.is_final,
        "queued_before": _queued_before(run) if run.state == RunState.QUEUED else None,
        "verdict": verdict_of(run),
        "used": resources_of(run) if run.is_final else [],
    }


def _results(request: HttpRequest, run: Run) -> dict[str, object]:
    if run.state != RunState.SCORED:
        return {}
    now, is_organiser = timezone.now(), is_staff(request)
    results = shown_among(_RESULTS.ask(run=run.pk), run, now, is_organiser=is_organiser)
    return {
        "suite_results": shown_suites(results, _TASKS.ask(run=run.pk)),
        "has_samples": any(
            result.has_samples  # type: ignore[attr-defined]  # annotated
            for result in results
            if not result.suite.is_hidden
        ),
        "is_large_gap": is_flagged(run, now, is_organiser=is_organiser),
    }


def _queued_before(run: Run) -> int:
    """How many runs of its queue are taken before this one, as things are now; see RunQuerySet.in_turn."""
    same = Q(priority=run.priority)
    sooner = Q(turn__lt=run.turn) | Q(turn=run.turn, queued_at__lt=run.queued_at)
    return Run.objects.claimable().filter(Q(priority__gt=run.priority) | (same & sooner), queue=run.queue).count()
