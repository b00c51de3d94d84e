"""The Celery tasks. Each can be delivered twice or run beside itself: the database decides who does the work."""

import os
import socket
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, worker_ready
from django.conf import settings
from django.db import connection
from django.utils import timezone

from tiltyard.celery import app
from tiltyard.submissions import collection
from tiltyard.worker import maintenance
from tiltyard.worker.execution import execute
from tiltyard.worker.fitness import Unfit, fit_machine
from tiltyard.worker.strays import try_to_sweep


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


@app.task(name="tiltyard.collect_artefacts")  # type: ignore[untyped-decorator]
def collect_artefacts() -> int:
    """Remove what was uploaded and nothing refers to any more."""
    return collection.collect_artefacts(timezone.now())


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def refuse_to_start_unfit(sender: str, instance: Any, **_: object) -> None:
    """Before a worker for runs is on any queue: say what its machine lacks, and stop; later it would only wait."""
    if _is_for_maintenance_alone(instance.app):
        return
    try:
        with fit_machine():
            return
    except Unfit as problem:
        raise SystemExit(f"The worker {sender} does not start. {problem}") from problem


@worker_ready.connect  # type: ignore[untyped-decorator]
def sweep_at_start(sender: Any = None, **_: object) -> None:
    """A worker that was killed may have left things behind; the maintenance worker may have no engine."""
    if sender is not None and _is_for_maintenance_alone(sender.app):
        return
    try:
        try_to_sweep()
    finally:
        connection.close()


def _is_for_maintenance_alone(started: Celery) -> bool:
    """Whether a worker takes no runs, and so needs no engine."""
    return set(started.amqp.queues.consume_from) <= {settings.MAINTENANCE_QUEUE}
