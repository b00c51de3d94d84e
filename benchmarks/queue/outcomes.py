"""What must hold of the runs when all of them are over, and figures about them; needs Django to be set up."""

import collections
from typing import Any

from django.db.models import Count, Max, Sum
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition
from tiltyard.submissions.models import Run, Submission
from tiltyard.submissions.quota import quota_for
from tiltyard.submissions.states import FINAL, EventKind, FailureReason, RunState


def figures() -> dict[str, Any]:
    """How the runs ended, and after how many attempts."""
    ends = dict(Run.objects.order_by().values_list("state").annotate(Count("pk")))
    return {"ends": ends, **Run.objects.aggregate(attempts=Sum("attempt"), faults=Sum("faults"), most=Max("attempt"))}


def problems(names: set[str]) -> list[str]:
    """What must not be, in words, for submissions of these names; empty when everything holds."""
    found = []
    known = collections.Counter(Submission.objects.values_list("name", flat=True))
    if set(known) != names or len(known) != sum(known.values()):
        found.append(f"{len(known)} names and {sum(known.values())} submissions for {len(names)} handed in")
    for run in Run.objects.filter(state__in=FINAL).prefetch_related("events", "suite_results"):
        found += [f"{run.pk}: {problem}" for problem in _problems_of(run)]
    competition = Competition.objects.get()
    for person in User.objects.all():
        used = quota_for(person, competition, timezone.now()).total_used
        own = Run.objects.filter(submission__owner=person)
        due = own.filter(state=RunState.SCORED).count() + own.unfinished().count()
        if used != due:
            found.append(f"{person}: {used} of the quota are used for {due} scores and runs that have not ended")
    return found


def _problems_of(run: Run) -> list[str]:
    found = []
    events, results = list(run.events.all()), list(run.suite_results.all())
    verdicts = [event for event in events if event.kind == EventKind.VERDICT]
    if len(verdicts) != 1 or verdicts[0].state != run.state or verdicts[0].attempt != run.attempt:
        found.append(f"{run.state} with the verdicts {[event.state for event in verdicts]}")
    writers = {result.result["execution_mode"] for result in results}
    scored = run.state == RunState.SCORED
    if scored and (len(results) != 2 or writers != {f"attempt-{run.attempt}"}):
        found.append(f"{len(results)} results, written by {sorted(writers)}, in attempt {run.attempt}")
    if not scored and (results or run.score is not None or run.failure_reason != FailureReason.INFRA_ERROR):
        said = run.failure_message[:300]
        found.append(f"{run.state} {run.failure_reason} with {len(results)} results: {said}")
    claims = [event.attempt for event in events if event.kind == EventKind.CLAIMED]
    if claims != list(range(1, run.attempt + 1)):
        found.append(f"the attempts {claims}")
    return found
