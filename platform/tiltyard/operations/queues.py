"""The state of the queues, read from the database, which is the truth about them: for metrics and the status page.

How long a newcomer waits is estimated as the work ahead, by the median duration of the queue's last runs, over the
workers that have been seen. It is an estimate for people; nothing depends on it.

A worker is seen by what it does with runs: one that has nothing to do reports nothing. So a queue where all is quiet
may have a worker that has not been seen for long; one where runs wait, and nobody takes them, has none, whoever was
there before.
"""

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db.models import Count, F, Max, Min, OuterRef, Q, Subquery, Window
from django.db.models.functions import RowNumber

from tiltyard.competitions.models import Track
from tiltyard.submissions.models import Run, RunQuerySet
from tiltyard.submissions.states import ACTIVE, EventKind, FailureReason, RunState

RECENT_RUNS: Final = 50
RECENT: Final = timedelta(days=30)
WORKER_SEEN_WITHIN: Final = timedelta(hours=1)
TAKEN_WITHIN: Final = timedelta(minutes=2)  # by a worker that has nothing else to do; it may look at its engine first
# What failed by our fault may have been ended by others, for a worker that was gone.
_ENDED_BY_ITS_WORKER: Final = ~Q(failure_reason=FailureReason.INFRA_ERROR)


@dataclass(frozen=True)
class Queue:
    """One queue at a moment. Waits are in seconds."""

    name: str
    waiting: int
    running: int
    workers: int  # that hold a run, or ended one in the last hour; none where it is deserted
    oldest_wait_s: float
    run_s: float | None  # median of the last runs; None before the first
    expected_wait_s: float | None  # of somebody who hands in now; None where it cannot be told
    last_report_at: datetime | None  # of a worker; None where none ever had a run
    is_deserted: bool  # runs wait that any worker could take, and none does


def queues(now: datetime) -> list[Queue]:
    """Every queue that a track of a competition names, by name; in a number of queries that none of it changes."""
    names = sorted(set(Track.objects.order_by().values_list("queue", flat=True).distinct()))
    waiting, running, free_since = _waiting(), _running(), _free_since()
    holding, rested, durations_s = _holding(now), _rested(now), _durations_s(now)
    reports = _last_reports(now)
    found = []
    for name in names:
        count, first = waiting.get(name, (0, now))
        run_s = statistics.median(durations_s[name]) if name in durations_s else None
        at_work = holding.get(name, set())
        is_deserted = not at_work and free_since.get(name, now) < now - TAKEN_WITHIN
        seen = 0 if is_deserted else len(at_work | rested.get(name, set()))
        found.append(
            Queue(
                name=name,
                waiting=count,
                running=running[name],
                workers=seen,
                oldest_wait_s=max(0.0, (now - first).total_seconds()),
                run_s=run_s,
                expected_wait_s=expected_wait_s(count, running[name], seen, run_s),
                last_report_at=reports.get(name),
                is_deserted=is_deserted,
            )
        )
    return found


def expected_wait_s(waiting: int, running: int, workers: int, run_s: float | None) -> float | None:
    """Seconds until a newcomer's run starts, when each run takes `run_s` and those under way are half done.

    None where no worker has been seen or no run has ended.
    """
    if workers == 0:
        return None
    if waiting == 0 and running < workers:
        return 0.0
    if run_s is None:
        return None
    return run_s * (0.5 + math.floor(waiting / workers))


def _waiting() -> dict[str, tuple[int, datetime]]:
    """By queue, how many wait and since when the first."""
    rows = Run.objects.filter(state=RunState.QUEUED).order_by().values_list("queue")
    return {queue: (count, first) for queue, count, first in rows.annotate(Count("pk"), Min("queued_at"))}


def _running() -> Counter[str]:
    rows = Run.objects.filter(state__in=ACTIVE).order_by().values_list("queue")
    return Counter(dict(rows.annotate(Count("pk"))))


def _free_since() -> dict[str, datetime]:
    """By queue, since when the first waits of those that nothing but a missing worker keeps waiting."""
    busy = Run.objects.active_of_participants().order_by().values("submission__owner")  # it may be their own limit
    rows = Run.objects.claimable().exclude(submission__owner__in=busy).order_by().values_list("queue")
    queued_for = timedelta(seconds=settings.QUEUE_DEADLINE_S)  # from the last time that it was queued
    return {queue: at - queued_for for queue, at in rows.annotate(Min("deadline_at"))}


def _holding(now: datetime) -> dict[str, set[str]]:
    """By queue, the worker processes that hold a run now."""
    return _workers_of(_worked().filter(state__in=ACTIVE, lease_expires_at__gte=now))


def _rested(now: datetime) -> dict[str, set[str]]:
    """By queue, those that ended a run a short while ago."""
    return _workers_of(_worked().filter(_ENDED_BY_ITS_WORKER, finished_at__gte=now - WORKER_SEEN_WITHIN))


def _workers_of(runs: RunQuerySet) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for queue, worker in runs.values_list("queue", "worker").distinct():
        found.setdefault(queue, set()).add(worker)
    return found


def _last_reports(now: datetime) -> dict[str, datetime]:
    """By queue, when a worker last did something with a run; of a queue without such a run, nothing."""
    last_ended = _worked().filter(_ENDED_BY_ITS_WORKER, queue=OuterRef("queue"), finished_at__isnull=False)
    queues_named = Track.objects.order_by().values("queue").distinct()
    ended = queues_named.annotate(at=Subquery(last_ended.order_by("-finished_at").values("finished_at")[:1]))
    # Of a run that is under way, was given back or failed by our fault: what the attempt told. They are few.
    unended = Q(state__in=[*ACTIVE, RunState.QUEUED], attempt__gt=0)
    failed = Q(failure_reason=FailureReason.INFRA_ERROR, finished_at__gte=now - RECENT)
    begun = Q(events__attempt__gt=0, events__kind__in=[EventKind.CLAIMED, EventKind.STAGE])
    told = Run.objects.filter(unended | failed).order_by().values("queue").annotate(at=Max("events__at", filter=begun))
    found: dict[str, datetime] = {}
    for row in [*ended, *told]:
        name, at = row["queue"], row["at"]
        if at is not None and (name not in found or found[name] < at):
            found[name] = at
    return found


def _worked() -> RunQuerySet:
    return Run.objects.exclude(worker="").order_by()


def _durations_s(now: datetime) -> dict[str, list[float]]:
    """By queue, how long its last RECENT_RUNS scored runs took."""
    scored = Run.objects.filter(state=RunState.SCORED, started_at__isnull=False, finished_at__gte=now - RECENT)
    place = Window(RowNumber(), partition_by=[F("queue")], order_by=F("finished_at").desc())
    rows = scored.order_by().annotate(place=place).filter(place__lte=RECENT_RUNS)
    found: dict[str, list[float]] = {}
    for queue, started, finished in rows.values_list("queue", "started_at", "finished_at"):
        if started and finished:
            found.setdefault(queue, []).append((finished - started).total_seconds())
    return found
