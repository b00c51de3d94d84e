"""What a submission uses, measured from outside: nothing that it says of itself is believed.

A thread beside the evaluation asks the engine for the container's counters, which the kernel keeps by control group,
and the GPU's driver for the device's. It only reads: a reading that fails makes a figure unknown, never an evaluation
fail.

What the figures are. CPU time is the group's counter at the last reading, at most `PERIOD_S` before the end. The peak
of memory is the kernel's own where the engine passes it on (control groups of version 1), else the highest of the
readings; both count the page cache that the group caused. A GPU's figures are the whole device's, which the run has to
itself.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import docker

from tiltyard_sandbox.containers import ROLE_LABEL
from tiltyard_sandbox.engine import ENGINE_ERRORS

logger = logging.getLogger(__name__)

PERIOD_S: Final = 0.5
_NS: Final = 1e9


@dataclass(frozen=True)
class GpuReading:
    """One look at a GPU; None for what this device does not tell."""

    memory_used_bytes: int
    utilisation: float | None  # 0..1: the share of the last moments in which a kernel ran
    energy_j: float | None  # a counter: only differences mean something
    process_ids: tuple[int, ...]  # with a compute context, in the host's numbers


@dataclass(frozen=True)
class Usage:
    """What one or more evaluations used; None for what was not measured."""

    wall_s: float
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    gpu_utilisation: float | None = None  # mean over the time
    gpu_memory_peak_bytes: int | None = None
    energy_j: float | None = None  # of the GPU

    def __add__(self, other: "Usage") -> "Usage":
        """Both, one after the other; a sum of which a part was not measured is not measured either."""
        return Usage(
            wall_s=self.wall_s + other.wall_s,
            cpu_s=_both(self.cpu_s, other.cpu_s, lambda a, b: a + b),
            memory_peak_bytes=_both(self.memory_peak_bytes, other.memory_peak_bytes, max),
            gpu_utilisation=_both(
                self.gpu_utilisation,
                other.gpu_utilisation,
                lambda a, b: (a * self.wall_s + b * other.wall_s) / ((self.wall_s + other.wall_s) or 1),
            ),
            gpu_memory_peak_bytes=_both(self.gpu_memory_peak_bytes, other.gpu_memory_peak_bytes, max),
            energy_j=_both(self.energy_j, other.energy_j, lambda a, b: a + b),
        )


class Meter:
    """A context manager around one evaluation; `usage` is what was used so far, and after the end, in all.

    Args:
        client: The engine.
        labels: Those of the evaluation's containers.
        read_gpu: Looks at the submission's GPU; None where it has none. May raise anything.
    """

    def __init__(
        self, client: docker.DockerClient, labels: Mapping[str, str], read_gpu: Callable[[], GpuReading] | None = None
    ) -> None:
        self._client = client
        self._labels = [f"{name}={value}" for name, value in labels.items()] + [f"{ROLE_LABEL}=submission"]
        self._read_gpu = read_gpu
        self._container_id: str | None = None
        self._begin = time.monotonic()
        self._end: float | None = None
        self._cpu_s: float | None = None
        self._memory_bytes: int | None = None
        self._gpu: list[GpuReading] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)

    def __enter__(self) -> Self:
        self._begin = time.monotonic()
        self._look_at_gpu()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        self._look_at_gpu()
        self._end = time.monotonic()

    @property
    def usage(self) -> Usage:
        shares = [one.utilisation for one in self._gpu if one.utilisation is not None]
        counters = [one.energy_j for one in self._gpu if one.energy_j is not None]
        return Usage(
            wall_s=(self._end or time.monotonic()) - self._begin,
            cpu_s=self._cpu_s,
            memory_peak_bytes=self._memory_bytes,
            gpu_utilisation=sum(shares) / len(shares) if shares else None,
            gpu_memory_peak_bytes=max((one.memory_used_bytes for one in self._gpu), default=None),
            energy_j=counters[-1] - counters[0] if len(counters) > 1 else None,
        )

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self._look_at_container()
            except (*ENGINE_ERRORS, KeyError, TypeError, ValueError) as error:  # gone, or an engine that says less
                logger.debug("no reading of a container: %s", error)
            self._look_at_gpu()
            self._stop.wait(PERIOD_S)

    def _look_at_container(self) -> None:
        if self._container_id is None:
            found = self._client.containers.list(filters={"label": self._labels}, ignore_removed=True)
            if not found:
                return
            self._container_id = str(found[0].id)
        stats = self._client.api.stats(self._container_id, stream=False, one_shot=True)
        cpu_s, memory_bytes = counters_of(stats)
        if cpu_s is not None:
            self._cpu_s = max(cpu_s, self._cpu_s or 0.0)
        if memory_bytes is not None:
            self._memory_bytes = max(memory_bytes, self._memory_bytes or 0)

    def _look_at_gpu(self) -> None:
        if self._read_gpu is None:
            return
        try:
            self._gpu.append(self._read_gpu())
        except Exception as error:  # a driver's trouble is no verdict on a submission
            logger.warning("no reading of the GPU: %s", error)


def counters_of(stats: Mapping[str, Any]) -> tuple[float | None, int | None]:
    """(CPU seconds, peak or present memory in bytes) in an engine's answer; None where the container no longer runs."""
    cpu_ns = (stats.get("cpu_stats", {}).get("cpu_usage") or {}).get("total_usage")
    memory = stats.get("memory_stats") or {}
    peak = memory.get("max_usage", memory.get("usage"))
    return (cpu_ns / _NS if cpu_ns else None), (int(peak) if peak else None)


def _both(a: Any, b: Any, join: Callable[[Any, Any], Any]) -> Any:
    return None if a is None or b is None else join(a, b)
