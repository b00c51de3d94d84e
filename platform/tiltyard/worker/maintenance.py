"""What heals the queue: publish again what the broker may have lost, take back what a dead worker holds."""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F

from tiltyard.submissions.models import Run, RunQuerySet
from tiltyard.submissions.states import FailureReason, RunState
from tiltyard.worker.execution import retry_or_fail
from tiltyard.worker.publishing import messages_waiting, publish

logger = logging.getLogger(__name__)

_BATCH = 500


def publish_unpublished(now: datetime) -> int:
    """Send the messages of queued runs that have none, or an old one that was lost; stops when the broker is down.

    A message too many is harmless, because a run is claimed once. But it stays until a worker takes it, so where no
    worker comes, every run would get one more each time: old ones are sent again only where messages are missing.
    """
    follow_tracks()
    queued = Run.objects.claimable()
    sent = _send(queued.filter(published_at=None))
    published = queued.exclude(published_at=None)
    old = published.filter(published_at__lt=now - timedelta(seconds=settings.QUEUE_REPUBLISH_S))
    for queue in old.order_by().values_list("queue", flat=True).distinct():
        waiting = messages_waiting(queue)
        if waiting is not None and waiting < published.filter(queue=queue).count():
            sent += _send(old.filter(queue=queue))
    return sent


def follow_tracks() -> int:
    """Take queued runs along whose track has moved to another queue; how many."""
    moved = Run.objects.claimable().exclude(queue=F("submission__track__queue"))
    return sum(
        Run.objects.claimable().filter(pk=pk).update(queue=queue, published_at=None)
        for pk, queue in moved.values_list("pk", "submission__track__queue")
    )


def _send(runs: RunQuerySet) -> int:
    sent = 0
    for run in runs.select_related("submission__track").order_by("queued_at")[:_BATCH]:
        if not publish(run):
            break
        sent += 1
    return sent


def reap(now: datetime) -> int:
    """Take back the runs whose worker has stopped renewing its lease, and end what has lasted too long; how many."""
    reaped = 0
    for run in Run.objects.expired(now).select_related("submission__track", "submission__competition"):
        if run.state == RunState.QUEUED:
            reaped += run.transition(
                RunState.FAILED,
                "No worker took the run in time.",
                now=now,
                failure_reason=FailureReason.INFRA_ERROR,
                failure_message="No worker took the run in time. This does not count against your quota.",
            )
        else:
            logger.warning("run %s attempt %d lost its worker %s", run.pk, run.attempt, run.worker)
            retry_or_fail(run)
            reaped += 1
    return reaped
