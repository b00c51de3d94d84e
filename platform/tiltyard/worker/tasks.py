"""The Celery tasks. Each can be delivered twice or run beside itself: the database decides who does the work."""

import logging
import os
import socket

from celery.signals import worker_ready
from django.db import connection
from django.utils import timezone

from tiltyard.celery import app
from tiltyard.worker import maintenance
from tiltyard.worker.execution import execute
from tiltyard.worker.strays import sweep_strays
from tiltyard_sandbox.engine import ENGINE_ERRORS, connect
from tiltyard_sandbox.verdicts import InfraFault

logger = logging.getLogger(__name__)


@app.task(name="tiltyard.execute_run", acks_late=True, reject_on_worker_lost=True)  # type: ignore[untyped-decorator]
def execute_run(run_id: str) -> None:
    """Bring one queued run to its end."""
    execute(run_id, worker=f"{socket.gethostname()}:{os.getpid()}")


@app.task(name="tiltyard.publish_queued")  # type: ignore[untyped-decorator]
def publish_queued() -> int:
    """The outbox: send messages that were never sent or may have been lost."""
    return maintenance.publish_unpublished(timezone.now())


@app.task(name="tiltyard.reap_expired")  # type: ignore[untyped-decorator]
def reap_expired() -> int:
    """Take runs back from workers that are gone."""
    return maintenance.reap(timezone.now())


@worker_ready.connect  # type: ignore[untyped-decorator]
def sweep_at_start(**_: object) -> None:
    """A worker that was killed may have left containers behind; the maintenance worker may have no engine."""
    try:
        client = connect()
        try:
            sweep_strays(client)
        finally:
            client.close()
    except (InfraFault, *ENGINE_ERRORS) as error:
        logger.warning("no sweep of stray containers: %s", error)
    finally:
        connection.close()
