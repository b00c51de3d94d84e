"""What a Celery worker does when it is ready, by the queues that it serves."""

import pytest
from celery import Celery
from celery.signals import worker_ready

from tiltyard.worker import tasks


class _Consumer:
    """As much of Celery's as the signal's receivers look at."""

    def __init__(self, queues: str) -> None:
        self.app = Celery()
        self.app.amqp.queues.select(queues.split(","))


class _Connection:
    def close(self) -> None:
        """There is none to close."""


@pytest.mark.parametrize(("queues", "sweeps"), [("maintenance", 0), ("cpu", 1), ("cpu,maintenance", 1)])
def test_a_worker_that_takes_runs_sweeps_its_engine(queues: str, sweeps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[None] = []
    monkeypatch.setattr(tasks, "try_to_sweep", lambda: swept.append(None))
    monkeypatch.setattr(tasks, "connection", _Connection())
    worker_ready.send(_Consumer(queues))
    assert len(swept) == sweeps
