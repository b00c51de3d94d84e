"""The state of the queues, read from the database, which is the truth about them: for metrics and the status page.

How long a newcomer waits is estimated as the work ahead, by the median duration of the queue's last runs, over the
workers that have been seen. It is an estimate for people; nothing depends on it.
"""

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Count, F, Min, Window
from django.db.models.functions import RowNumber

from tiltyard.competitions.models import Track
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import ACTIVE, RunState

RECENT_RUNS: Final = 50
RECENT: Final = timedelta(days=30)
WORKER_SEEN_WITHIN: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Queue:
    """One queue at a moment. Waits are in seconds."""

    name: str
    waiting: int
    running: int
    workers: int  # that hold a run, or ended one in the last hour
    oldest_wait_s: float
    run_s: float | None  # median of the last runs; None before the first
    expected_wait_s: float | None  # of somebody who hands in now; None where it cannot be told


def queues(now: datetime) -> list[Queue]:
    """Every queue that a track of a competition names, by name; in a number of queries that none of it changes."""
    names = sorted(set(Track.objects.order_by().values_list("queue", flat=True).distinct()))
    waiting, running = _waiting(), _running()
    workers, durations_s = _workers_seen(now), _durations_s(now)
    found = []
    for name in names:
        count, first = waiting.get(name, (0, now))
        run_s = statistics.median(durations_s[name]) if name in durations_s else None
        seen = len(workers.get(name, ()))
        found.append(
            Queue(
                name=name,
                waiting=count,
                running=running[name],
                workers=seen,
                oldest_wait_s=max(0.0, (now - first).total_seconds()),
                run_s=run_s,
                expected_wait_s=expected_wait_s(count, running[name], seen, run_s),
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


def _workers_seen(now: datetime) -> dict[str, set[str]]:
    """By queue, the worker processes that hold a run now, or ended one a short while ago."""
    worked = Run.objects.exclude(worker="").order_by()
    holding = worked.filter(state__in=ACTIVE, lease_expires_at__gte=now)
    ended = worked.filter(finished_at__gte=now - WORKER_SEEN_WITHIN)
    found: dict[str, set[str]] = {}
    for queue, worker in [*holding.values_list("queue", "worker"), *ended.values_list("queue", "worker").distinct()]:
        found.setdefault(queue, set()).add(worker)
    return found


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
