"""Ring the workers' doorbell: put a run's id on its track's queue."""

import logging
from functools import cache

import redis
from django.conf import settings
from django.utils import timezone
from kombu.exceptions import OperationalError

from tiltyard.submissions.models import Run

logger = logging.getLogger(__name__)

_BROKER_TIMEOUT_S = 2


def publish(run: Run) -> bool:
    """Send the run's message; False when the broker is down, and then the outbox job sends it later."""
    if not ring(run):
        return False
    # Not of a run that was taken, and maybe queued again, in the meantime: its next message is still to be sent.
    Run.objects.claimable().filter(pk=run.pk, attempt=run.attempt).update(published_at=timezone.now())
    return True


def ring(run: Run) -> bool:
    """Tell one worker of the run's queue that there is something to do; False when the broker is down."""
    from tiltyard.worker.tasks import execute_run  # noqa: PLC0415 - the task's module imports this one

    try:
        execute_run.apply_async((str(run.pk),), queue=run.queue or run.submission.track.queue, retry=False)
    except OperationalError as error:
        logger.warning("run %s is queued but its message could not be sent: %s", run.pk, type(error).__name__)
        return False
    return True


def ring_for_the_next(queue: str) -> None:
    """After an end that makes room: see to it that a worker comes, where runs wait and no message does.

    A message finds nothing to do while its participants have all they may have under way; it is not kept for later.
    """
    if messages_waiting(queue) != 0:  # or the broker is down
        return
    waiting = Run.objects.in_turn(queue).only("queue").first()
    if waiting is not None:
        ring(waiting)


def messages_waiting(queue: str) -> int | None:
    """How many messages no worker has taken yet; None when the broker is down."""
    try:
        return int(_broker(settings.REDIS_URL).llen(queue))  # Celery keeps a queue as the list of its name
    except redis.RedisError as error:
        logger.warning("the queue %s cannot be looked at: %s", queue, type(error).__name__)
        return None


@cache
def _broker(url: str) -> redis.Redis:
    """One client for each process: it connects anew by itself after a fork, and after the broker was away."""
    return redis.Redis.from_url(url, socket_connect_timeout=_BROKER_TIMEOUT_S, socket_timeout=_BROKER_TIMEOUT_S)
