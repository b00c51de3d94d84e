"""The periodic job of the boards; it runs in the maintenance queue, so that no evaluation waits for it.

A board of two thousand entries takes minutes, while the queue's other jobs, such as looking after dead workers, are due
every few seconds. So the maintenance worker has two processes, and this job takes one of them at most.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from tiltyard.celery import app
from tiltyard.leaderboards.refresh import refresh_all


@app.task(name="tiltyard.refresh_boards")  # type: ignore[untyped-decorator]
def refresh_boards() -> int:
    """Compute the statistics of every board that has changed; 0 at once while another process does."""
    with _alone() as is_alone:
        return refresh_all(timezone.now()) if is_alone else 0


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether no other process of this host is in here; a process that dies leaves no lock."""
    with (Path(settings.WORK_DIR) / "refresh-boards.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
