"""The Celery application. Messages carry only a run's id: the database is the truth, Redis the doorbell."""

import os

from celery import Celery, Task
from celery.signals import task_postrun, task_prerun

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tiltyard.settings")

app = Celery("tiltyard")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["tiltyard.worker", "tiltyard.leaderboards"])


@task_prerun.connect  # type: ignore[untyped-decorator]
@task_postrun.connect  # type: ignore[untyped-decorator]
def keep_connections(sender: Task, **_: object) -> None:
    """Close those that are broken or old, as Django does around a request; the others go on with their plans.

    Celery would close all of them, twice a task (CELERY_DB_REUSE_MAX keeps it from that): of a short run an eighth of
    the worker's time went into new ones, and PostgreSQL's plans with the old ones.
    """
    from django.db import close_old_connections  # noqa: PLC0415 - the settings need not be there on import

    if not sender.request.is_eager:  # called in somebody's own process, maybe within a transaction
        close_old_connections()
