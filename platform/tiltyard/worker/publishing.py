"""Ring the workers' doorbell: put a run's id on its track's queue."""

import logging

import redis
from django.conf import settings
from django.utils import timezone
from kombu.exceptions import OperationalError

from tiltyard.submissions.models import Run

logger = logging.getLogger(__name__)

_BROKER_TIMEOUT_S = 2


def publish(run: Run) -> bool:
    """Send the run's message; False when the broker is down, and then the outbox job sends it later."""
    from tiltyard.worker.tasks import execute_run  # noqa: PLC0415 - the task's module imports this one

    try:
        execute_run.apply_async((str(run.pk),), queue=run.submission.track.queue, retry=False)
    except OperationalError as error:
        logger.warning("run %s is queued but its message could not be sent: %s", run.pk, type(error).__name__)
        return False
    Run.objects.filter(pk=run.pk).update(published_at=timezone.now())
    return True


def messages_waiting(queue: str) -> int | None:
    """How many messages no worker has taken yet; None when the broker is down."""
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=_BROKER_TIMEOUT_S, socket_timeout=_BROKER_TIMEOUT_S
        ) as client:
            return int(client.llen(queue))  # Celery keeps a queue as the list of its name
    except redis.RedisError as error:
        logger.warning("the queue %s cannot be looked at: %s", queue, type(error).__name__)
        return None
