"""What Prometheus scrapes. Every number is counted in the database at the scrape.

So it is the same whichever web process answers, it counts what every worker did, and it survives restarts: there is
no state in a process to be merged or lost. Labels are names of queues, states, reasons and stages, never anything that
a participant wrote, and nothing of a hidden suite.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Count
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tiltyard.operations.queues import Queue, queues
from tiltyard.submissions.models import Run, RunEvent
from tiltyard.submissions.models.gpus import Gpu
from tiltyard.submissions.states import ACTIVE, FINAL, FailureReason, RunState

WINDOW: Final = timedelta(hours=24)  # of the durations: older ones are in the scraper's own history
EVENTS_MAX: Final = 200_000
BUCKETS_S: Final = (1, 3, 10, 30, 60, 180, 600, 1800, 3600, 7200, 21_600)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def exposition(now: datetime) -> bytes:
    """The page that a Prometheus server reads."""
    registry = CollectorRegistry()
    registry.register(_DatabaseCollector(now))
    return bytes(generate_latest(registry))


class _DatabaseCollector(Collector):
    def __init__(self, now: datetime) -> None:
        self._now = now

    def describe(self) -> list[Metric]:
        """Nothing beforehand: else registering would ask the database as well."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _queue_metrics(self._now)
        yield from _run_metrics()
        yield _stage_durations(self._now)
        yield _gpus(self._now)


def _queue_metrics(now: datetime) -> Iterator[Metric]:
    found = queues(now)
    gauges: list[tuple[str, str, Callable[[Queue], float | None]]] = [
        ("waiting_runs", "Runs that wait for a worker", lambda queue: queue.waiting),
        ("running_runs", "Runs under way", lambda queue: queue.running),
        ("workers", "Workers that hold a run or ended one in the last hour", lambda queue: queue.workers),
        ("oldest_wait_seconds", "How long the first in the queue has waited", lambda queue: queue.oldest_wait_s),
        ("expected_wait_seconds", "Estimate for a run that is handed in now", lambda queue: queue.expected_wait_s),
    ]
    for name, text, value in gauges:
        family = GaugeMetricFamily(f"tiltyard_queue_{name}", text, labels=["queue"])
        for queue in found:
            number = value(queue)
            if number is not None:
                family.add_metric([queue.name], float(number))
        yield family


def _run_metrics() -> Iterator[Metric]:
    by_state = dict(Run.objects.order_by().values_list("state").annotate(Count("pk")))
    states = GaugeMetricFamily("tiltyard_runs", "Runs by state", labels=["state"])
    for state in RunState.values:
        states.add_metric([state], by_state.get(state, 0))
    yield states
    ended = CounterMetricFamily("tiltyard_ended_runs", "Runs that are over, by how they ended", labels=["state"])
    for state in sorted(FINAL):
        ended.add_metric([state], by_state.get(state, 0))
    yield ended
    failed = Run.objects.filter(state=RunState.FAILED).order_by()
    by_reason = dict(failed.values_list("failure_reason").annotate(Count("pk")))
    reasons = CounterMetricFamily("tiltyard_failed_runs", "Runs that failed, by reason", labels=["reason"])
    for reason in FailureReason.values:
        reasons.add_metric([reason], by_reason.get(reason, 0))
    yield reasons


def _gpus(now: datetime) -> Metric:
    """Each GPU that a worker was given, in one of three states: the metric is 1 for the one that holds."""
    family = GaugeMetricFamily("tiltyard_gpu", "GPUs by state: free, held or quarantined", labels=["uuid", "state"])
    for gpu in Gpu.objects.all():
        is_held = gpu.lease_expires_at is not None and gpu.lease_expires_at >= now
        actual = "quarantined" if gpu.quarantined_at else "held" if is_held else "free"
        for state in ("free", "held", "quarantined"):
            family.add_metric([gpu.uuid, state], float(state == actual))
    return family


def _stage_durations(now: datetime) -> Metric:
    """A histogram of the seconds between one state and the next, over the last day."""
    family = HistogramMetricFamily(
        "tiltyard_stage_seconds", "Seconds that runs spent in a state, of states left in the last day", labels=["stage"]
    )
    durations_s: dict[str, list[float]] = {state: [] for state in (RunState.QUEUED.value, *sorted(ACTIVE))}
    for stage, seconds in _stages(now):
        if stage in durations_s:
            durations_s[stage].append(seconds)
    for stage, values in durations_s.items():
        family.add_metric([stage], buckets=_buckets(values), sum_value=sum(values))
    return family


def _stages(now: datetime) -> Iterator[tuple[str, float]]:
    """Each (state, seconds in it) that a run has left, from the events of runs one after another."""
    rows = RunEvent.objects.filter(at__gte=now - WINDOW).order_by("run_id", "id").values_list("run_id", "state", "at")
    entered: tuple[object, str, datetime] | None = None
    for run, state, at in rows[:EVENTS_MAX].iterator():
        if entered is not None and entered[0] == run:
            if entered[1] == state:
                continue  # said something about the same state
            yield entered[1], max(0.0, (at - entered[2]).total_seconds())
        entered = run, state, at


def _buckets(values: Iterable[float]) -> list[tuple[str, float]]:
    """Cumulative counts, as the text format has them."""
    counted = list(values)
    bounds = [(str(float(bound)), float(sum(value <= bound for value in counted))) for bound in BUCKETS_S]
    return [*bounds, ("+Inf", float(len(counted)))]
