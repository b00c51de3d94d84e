"""Connections that outlive what they were opened for: a worker's to the database, a process's to Redis."""

import pytest
from celery.fixups.django import DjangoWorkerFixup
from celery.signals import task_postrun, task_prerun
from django.db import connection
from web_rows import Site

from tiltyard.celery import app
from tiltyard.operations.cache import ForgivingRedisCache
from tiltyard.worker.tasks import execute_run

ADDRESS = "redis://127.0.0.1:1/0"


def test_a_worker_keeps_its_connection_from_task_to_task(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(connection, "close", lambda: closed.append("closed"))
    DjangoWorkerFixup(app).close_database()
    assert closed == []


@pytest.mark.parametrize("signal", [task_prerun, task_postrun])
def test_around_a_task_it_lets_go_of_broken_and_old_ones(signal: object, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr("django.db.close_old_connections", lambda: looked.append("looked"))
    signal.send(sender=execute_run)  # type: ignore[attr-defined]
    assert looked == ["looked"]


def test_all_caches_of_a_process_share_their_connections() -> None:
    """Django makes one for each thread."""
    one, other = (ForgivingRedisCache(ADDRESS, {"OPTIONS": {"socket_timeout": 1}}) for _ in range(2))
    assert one._cache is other._cache
    assert ForgivingRedisCache(ADDRESS, {"OPTIONS": {"socket_timeout": 2}})._cache is not one._cache
