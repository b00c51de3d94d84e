"""A worker that is asked to stop (SIGTERM): it takes no further run, and gives the one it has a little longer.

Celery's main process hears the signal; the run is in its child. The event is made before the child is forked, so both
have it. When the time is over the attempt stops its containers and queues the run again, which is nobody's fault.
"""

import multiprocessing

from celery.signals import worker_shutting_down

_requested = multiprocessing.get_context("fork").Event()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def request(**_: object) -> None:
    """From now on this worker is stopping."""
    _requested.set()


def is_requested() -> bool:
    return _requested.is_set()


def pause(time_s: float) -> None:
    """Wait, but not while the worker is stopping."""
    _requested.wait(time_s)
