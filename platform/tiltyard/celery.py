"""The Celery application. Messages carry only a run's id: the database is the truth, Redis the doorbell."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tiltyard.settings")

app = Celery("tiltyard")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["tiltyard.worker", "tiltyard.leaderboards"])
