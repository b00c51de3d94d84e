"""The organiser's view of submissions and runs: look, cancel, run again."""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from tiltyard.competitions.admin import ReadOnlyMixin
from tiltyard.submissions.intake import queue_run
from tiltyard.submissions.models import Artefact, Run, RunEvent, Submission, SuiteResult


class RunInline(ReadOnlyMixin, admin.TabularInline):  # type: ignore[type-arg]
    model = Run
    fields = ["state", "failure_reason", "attempt", "score", "queued_at", "finished_at"]
    extra = 0
    show_change_link = True


class EventInline(ReadOnlyMixin, admin.TabularInline):  # type: ignore[type-arg]
    model = RunEvent
    fields = ["at", "attempt", "state", "message"]
    extra = 0


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


@admin.register(Submission)
class SubmissionAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["name", "owner", "competition", "track", "is_baseline", "created_at"]
    list_filter = ["competition", "track", "is_baseline"]
    search_fields = ["name", "owner__username", "id"]
    list_select_related = ["owner", "competition", "track__competition"]
    date_hierarchy = "created_at"
    inlines = [RunInline]
    actions = [run_again]


@admin.register(Run)
class RunAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["submission", "state", "failure_reason", "attempt", "worker", "score", "queued_at", "finished_at"]
    list_filter = ["state", "failure_reason", "submission__competition"]
    search_fields = ["id", "submission__name", "submission__owner__username"]
    list_select_related = ["submission"]
    date_hierarchy = "queued_at"
    inlines = [EventInline, SuiteResultInline]
    actions = [cancel]


@admin.register(Artefact)
class ArtefactAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["sha256", "kind", "size_bytes", "created_at"]
    search_fields = ["sha256"]
