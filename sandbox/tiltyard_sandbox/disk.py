"""The engine's disk: how much of it is free, and who has filled it.

The engine does not say what its disk has left, and a worker in a container, or one that reaches its engine over a
network, does not see that disk. So it is measured from inside: a small container of a trusted image asks how much room
is below its own root, which lies where all images and containers do.
"""

import logging
import threading
import time
from types import TracebackType
from typing import Any, Final, Self

import docker

from tiltyard_sandbox.containers import gauge_options
from tiltyard_sandbox.engine import ENGINE_ERRORS
from tiltyard_sandbox.limits import GIB
from tiltyard_sandbox.owners import GAUGE_LABEL, named_by
from tiltyard_sandbox.verdicts import InfraFault, Reason, SubmissionFault
from tiltyard_sandbox.watching import LinePump

RESERVE_BYTES: Final = 2 * GIB  # no build goes on with less free than this: the engine and the host need some
ROOM_BYTES_MIN: Final = 1 * GIB  # beyond the reserve and what the upload itself needs; with less no build begins
READING_TIMEOUT_S: Final = 30.0
STALE_S: Final = 20.0  # readings come every second; under a heavy load some seconds late
_GOING: Final = frozenset({404, 409})  # it removes itself when it ends
_OUTPUT_BYTES_MAX: Final = 16 * 1024 * 1024
_MEASURE: Final = """
import os, sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    root = os.statvfs("/")
    print(root.f_bavail * root.f_frsize, flush=True)
    time.sleep(1)
"""
_LOG = logging.getLogger(__name__)


class DiskGauge:
    """A context manager around the measuring container; it ends by itself after `life_s`, should nobody remove it.

    `image` needs a `python3`. Entering raises InfraFault when there comes no reading, and so does asking for one when
    none has come for `STALE_S`: a gauge that died would else call the disk as free as it was.
    """

    def __init__(self, client: docker.DockerClient, image: str, *, owner: str, life_s: float) -> None:
        self._client = client
        self._image = image
        self._labels = {GAUGE_LABEL: named_by(owner)}
        self._life_s = life_s
        self._container: Any = None
        self._pump: LinePump | None = None
        self._has_read = threading.Event()
        self._free_bytes = 0
        self._read_at = 0.0

    def __enter__(self) -> Self:
        try:
            command = ["python3", "-I", "-S", "-c", _MEASURE, f"{self._life_s:.0f}"]
            options = gauge_options(self._image, command=command, labels=self._labels)
            self._container = self._client.containers.create(**options)
            self._container.start()
            self._pump = LinePump(self._client, self._container.id, self._note, bytes_max=_OUTPUT_BYTES_MAX)
            if not self._has_read.wait(READING_TIMEOUT_S):
                raise InfraFault(f"The engine's disk cannot be measured: {self._image} printed nothing to go by.")
        except ENGINE_ERRORS as error:
            self._remove()
            raise InfraFault(f"The engine's disk cannot be measured with {self._image}: {str(error)[:300]}") from error
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def is_over(self) -> bool:
        """Whether no further reading will come."""
        return self._pump is None or self._pump.is_over

    def free_bytes(self) -> int:
        """The last reading; they come every second. Raises InfraFault when they have ceased."""
        if self.is_over or time.monotonic() > self._read_at + STALE_S:
            raise InfraFault("The engine's disk is not measured any more: the gauge's container has ended or hangs.")
        return self._free_bytes

    def _note(self, line: str) -> None:
        if line.isdecimal():
            self._free_bytes = int(line)
            self._read_at = time.monotonic()
            self._has_read.set()

    def _remove(self) -> None:
        try:
            if self._container is not None:
                self._container.remove(force=True, v=True)
        except docker.errors.APIError as error:
            if error.status_code not in _GOING:
                _LOG.warning("a disk gauge could not be removed: %s", error)
        except ENGINE_ERRORS as error:
            _LOG.warning("a disk gauge could not be removed: %s", error)
        if self._pump is not None:
            self._pump.finish()


def require_room(free_bytes: int, upload_bytes: int) -> None:
    """Raise InfraFault unless an upload of this size can be worked on without coming near the reserve."""
    needed_bytes = RESERVE_BYTES + upload_bytes + ROOM_BYTES_MIN
    if free_bytes < needed_bytes:
        raise InfraFault(
            f"The disk of the Docker engine has {_gib(free_bytes)} free, and this submission may need "
            f"{_gib(needed_bytes)}: make room there."
        )


class DiskShare:
    """What one build takes of the disk, against what vanishes from it while it runs."""

    def __init__(self, gauge: DiskGauge, context_bytes: int) -> None:
        self._gauge = gauge
        self._free_at_start_bytes = gauge.free_bytes()
        self._context_bytes = context_bytes  # the engine unpacks it before it begins

    def require_room(self) -> None:
        """Raise InfraFault unless there is room for the context, for one copy of it in the image, and some more."""
        require_room(self._free_at_start_bytes, 2 * self._context_bytes)

    def is_at_reserve(self) -> bool:
        """Whether the disk is about to run out; raises InfraFault when nobody knows."""
        return self._gauge.free_bytes() < RESERVE_BYTES

    def fault(self, written_bytes: int) -> SubmissionFault | InfraFault:
        """Whose fault a full disk is, when the build's steps have written this much; raises InfraFault as above.

        The build's, when at least half of what vanished since it began is its own. A COPY is seen only when it has
        ended, but until then it has copied no more than the context, which is counted from the start.
        """
        own_bytes = self._context_bytes + written_bytes
        vanished_bytes = self._free_at_start_bytes - self._gauge.free_bytes()
        if 2 * own_bytes >= vanished_bytes:
            return SubmissionFault(
                Reason.BUILD_FAILED,
                f"The build filled the disk of its machine and was stopped: it took {_gib(own_bytes)}. "
                "Write less in RUN steps, and leave out of the archive what the server does not need.",
            )
        return InfraFault(
            f"The disk of the Docker engine is almost full, and the build was stopped. It had taken {_gib(own_bytes)} "
            f"of the {_gib(vanished_bytes)} that vanished since it began."
        )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"
