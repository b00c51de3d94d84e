"""The thread beside a run that says its worker lives, carries progress to the database and hears of a cancellation."""

import logging
import threading
import time
from typing import Any, Self

from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import connection
from django.utils import timezone

from tiltyard.submissions.models import Run
from tiltyard.worker import draining
from tiltyard.worker.gpus import HeldGpu
from tiltyard.worker.logs import CappedLog

logger = logging.getLogger(__name__)

BEAT_S = 1.0


class Heartbeat:
    """A context manager around one attempt at a run.

    `cancel` is set when the run has to stop: because someone asked (`was_requested`), because this worker is stopping
    and has waited long enough (`was_drained`), because another worker has the run or the GPU now, because a deadline
    has passed, or because the database could not be reached for so long that the lease has run out.
    """

    def __init__(self, run: Run, gpu: HeldGpu | None = None) -> None:
        self.cancel = threading.Event()
        self.was_requested = False
        self.was_drained = False
        self._gpu = gpu
        self._drain_ends_s: float | None = None
        self._run = run
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pending: dict[str, Any] = {}
        self._logs: dict[str, CappedLog] = {}
        self._deadline_s = time.monotonic() + settings.RUN_DEADLINE_S
        self._lease_ends_s = time.monotonic() + settings.RUN_LEASE_S
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat-{run.pk}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def watch(self, column: str, log: CappedLog) -> None:
        """Copy the log into this column of the run with each beat in which it has grown."""
        self._logs[column] = log

    def report(self, **fields: Any) -> None:
        """Have these columns of the run written with the next beat."""
        with self._lock:
            self._pending |= fields

    def flush(self) -> None:
        """Write what was reported; the next beat tries again when the database cannot be reached."""
        with self._lock:
            fields, self._pending = self._pending, {}
        for column, log in self._logs.items():
            if (text := log.take_changed()) is not None:
                fields[column] = text
        if not fields:
            return
        try:
            self._run.write(**fields)
        except DatabaseFault:
            with self._lock:
                self._pending = fields | self._pending
            raise

    def _beat(self) -> None:
        try:
            while not self._stop.wait(BEAT_S) and not self.cancel.is_set():
                self._beat_once()
        finally:
            if not self._stop.is_set():
                self.cancel.set()  # whatever ended the beats: without them the lease runs out under the run
            connection.close()  # this thread's own

    def _beat_once(self) -> None:
        now_s = time.monotonic()
        try:
            if now_s > self._deadline_s:
                logger.error("run %s is over the deadline of an attempt; its lease is no longer renewed", self._run.pk)
                self.cancel.set()
            elif self._run.is_cancel_requested():
                self.was_requested = True
                self.cancel.set()
            elif self._is_drained(now_s):
                self.was_drained = True
                self.cancel.set()
            elif not self._run.renew_lease(timezone.now()):
                logger.warning("run %s was taken away from this worker, or took too long", self._run.pk)
                self.cancel.set()
            elif self._gpu is not None and not self._gpu.renew():
                logger.error("the GPU of run %s was taken away from this worker", self._run.pk)
                self.cancel.set()
            else:
                self._lease_ends_s = now_s + settings.RUN_LEASE_S
                self.flush()
        except DatabaseFault as error:  # also an InterfaceError, which is no DatabaseError
            logger.warning("the database cannot be reached from the heartbeat: %s", type(error).__name__)
            connection.close()
            if now_s > self._lease_ends_s:
                self.cancel.set()

    def _is_drained(self, now_s: float) -> bool:
        if not draining.is_requested():
            return False
        if self._drain_ends_s is None:
            self._drain_ends_s = now_s + settings.WORKER_DRAIN_S
        return now_s >= self._drain_ends_s
