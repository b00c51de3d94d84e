"""The organiser's view of submissions and runs: look, cancel, run again."""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from tiltyard.competitions.admin import ReadOnlyMixin
from tiltyard.leaderboards.changes import board_changed
from tiltyard.submissions.intake import queue_run
from tiltyard.submissions.models import Artefact, Gpu, ResourceUse, Run, RunEvent, Submission, SuiteResult


class RunInline(ReadOnlyMixin, admin.TabularInline):  # type: ignore[type-arg]
    model = Run
    fields = ["state", "failure_reason", "attempt", "score", "queued_at", "finished_at"]
    extra = 0
    show_change_link = True


class EventInline(ReadOnlyMixin, admin.TabularInline):  # type: ignore[type-arg]
    model = RunEvent
    fields = ["at", "attempt", "kind", "state", "message"]
    extra = 0


class ResourceUseInline(ReadOnlyMixin, admin.StackedInline):  # type: ignore[type-arg]
    model = ResourceUse


class SuiteResultInline(ReadOnlyMixin, admin.TabularInline):  # type: ignore[type-arg]
    model = SuiteResult
    fields = ["suite", "score", "low", "high", "wall_s", "repro_hash"]
    extra = 0


@admin.action(description="Run again (costs the participant nothing)")
def run_again(_admin: Any, request: HttpRequest, submissions: QuerySet[Submission]) -> None:
    """Queue a new run of each chosen submission that has none under way."""
    queued = 0
    for submission in submissions:
        with transaction.atomic():
            # The lock keeps two organisers from queueing the same one twice.
            Submission.objects.select_for_update().get(pk=submission.pk)
            if submission.runs.unfinished().exists():
                continue
            queue_run(submission, timezone.now(), "Queued again by an organiser.")
            queued += 1
    messages.info(request, f"{queued} queued; the others have a run under way.")


@admin.action(description="Cancel")
def cancel(_admin: Any, request: HttpRequest, runs: QuerySet[Run]) -> None:
    """Cancel each chosen run that is not over."""
    cancelled = sum(run.request_cancel(timezone.now()) for run in runs)
    messages.info(request, f"{cancelled} cancelled.")


@admin.action(description="Run before the others")
def run_first(_admin: Any, request: HttpRequest, runs: QuerySet[Run]) -> None:
    """Let each chosen run that waits be the next of its queue."""
    _set_priority(request, runs, Run.Priority.HIGH)


@admin.action(description="Run after the others")
def run_last(_admin: Any, request: HttpRequest, runs: QuerySet[Run]) -> None:
    """Let each chosen run wait until nothing else does."""
    _set_priority(request, runs, Run.Priority.LOW)


def _set_priority(request: HttpRequest, runs: QuerySet[Run], priority: Run.Priority) -> None:
    moved = Run.objects.claimable().filter(pk__in=runs.values("pk")).update(priority=priority)
    messages.info(request, f"{moved} moved; the others no longer wait.")


@admin.action(description="Release from quarantine")
def release(_admin: Any, request: HttpRequest, gpus: QuerySet[Gpu]) -> None:
    """Let submissions run on each chosen GPU again: look at it first."""
    chosen = list(gpus.exclude(quarantined_at=None))
    for gpu in chosen:
        gpu.release()
    messages.info(request, f"{len(chosen)} released.")


@admin.action(description="Make baselines of organisers' submissions")
def make_baseline(_admin: Any, request: HttpRequest, submissions: QuerySet[Submission]) -> None:
    """Take them out of the ranking, so that others are compared with them; only what an organiser handed in."""
    with transaction.atomic():
        made = submissions.filter(owner__is_staff=True).update(is_baseline=True)
        board_changed(set(submissions.order_by().values_list("track_id", flat=True)))
    messages.info(request, f"{made} made baselines; what participants handed in stays as it is.")


@admin.register(Submission)
class SubmissionAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["name", "owner", "competition", "track", "is_baseline", "created_at"]
    list_filter = ["competition", "is_baseline"]
    search_fields = ["name", "owner__username", "id"]
    list_select_related = ["owner", "competition", "track__competition"]
    date_hierarchy = "created_at"
    inlines = [RunInline]
    actions = [run_again, make_baseline]


@admin.register(Run)
class RunAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = [
        "submission",
        "state",
        "priority",
        "failure_reason",
        "attempt",
        "worker",
        "score",
        "queued_at",
        "finished_at",
    ]
    list_filter = ["state", "failure_reason", "submission__competition"]
    search_fields = ["id", "submission__name", "submission__owner__username"]
    list_select_related = ["submission"]
    date_hierarchy = "queued_at"
    inlines = [EventInline, ResourceUseInline, SuiteResultInline]
    actions = [cancel, run_first, run_last]


@admin.register(Artefact)
class ArtefactAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["sha256", "kind", "size_bytes", "created_at"]
    search_fields = ["sha256"]


@admin.register(Gpu)
class GpuAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["uuid", "holder", "lease_expires_at", "quarantined_at", "quarantine_reason"]
    actions = [release]
