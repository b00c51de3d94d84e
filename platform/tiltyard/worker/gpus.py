"""The GPU of this worker: leased in the database, looked at through NVML, and set aside when it is not clean.

A worker hands one GPU to submissions, named by its UUID in TILTYARD_WORKER_GPU_UUID; a host with several GPUs runs a
worker for each. Before a run and after it no process may have a compute context on the device, and its memory must be
free: what a submission left there could be read, or measured, by the next. A GPU on which something stays is put into
quarantine, and takes no run until an organiser has released it.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from django.conf import settings
from django.utils import timezone

from tiltyard.evaluation import GpuReading
from tiltyard.submissions.models import Gpu
from tiltyard.worker.fitness import Unfit

logger = logging.getLogger(__name__)

SETTLE_S = 10.0  # for the driver to take back what a killed process had
_POLL_S = 0.5


class GpuUnreadable(Exception):  # noqa: N818 - names what happened
    """The driver does not answer, or knows no such GPU; the message says what to do."""


class GpuReader(Protocol):
    """The boundary to the hardware."""

    def read(self, uuid: str) -> GpuReading:
        """One look at the device; raises GpuUnreadable."""
        ...


class Nvml:
    """NVIDIA's management library, by its own Python bindings (nvidia-ml-py)."""

    def __init__(self) -> None:
        try:
            import pynvml  # noqa: PLC0415 - only a worker with a GPU has it
        except ImportError:
            raise GpuUnreadable("nvidia-ml-py is not installed: pip install tiltyard[gpu].") from None
        self._nvml: Any = pynvml
        try:
            self._nvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise GpuUnreadable(f"The NVIDIA driver does not answer: {error}. See nvidia-smi.") from error

    def read(self, uuid: str) -> GpuReading:
        nvml = self._nvml
        try:
            device = nvml.nvmlDeviceGetHandleByUUID(uuid)
            # Version 2 leaves out what the driver keeps for itself.
            memory = nvml.nvmlDeviceGetMemoryInfo(device, version=nvml.nvmlMemory_v2)
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(device)
        except nvml.NVMLError as error:
            raise GpuUnreadable(f"The GPU {uuid} cannot be read: {error}. nvidia-smi -L lists the UUIDs.") from error
        rates = self._optional(nvml.nvmlDeviceGetUtilizationRates, device)
        energy_mj = self._optional(nvml.nvmlDeviceGetTotalEnergyConsumption, device)
        return GpuReading(
            memory_used_bytes=int(memory.used),
            utilisation=None if rates is None else rates.gpu / 100,
            energy_j=None if energy_mj is None else energy_mj / 1000,
            process_ids=tuple(int(process.pid) for process in processes),
        )

    def _optional(self, ask: Any, device: Any) -> Any:
        """The answer, or None from a device that does not have it: a MIG part, or one that is too old."""
        try:
            return ask(device)
        except self._nvml.NVMLError:
            return None


def open_reader() -> GpuReader:
    return Nvml()


@dataclass(frozen=True)
class HeldGpu:
    """A GPU that this worker has the lease of."""

    gpu: Gpu
    reader: GpuReader

    def read(self) -> GpuReading:
        return self.reader.read(self.gpu.uuid)

    def renew(self) -> bool:
        """False when another worker has it now."""
        return self.gpu.renew(timezone.now())

    def dirt(self) -> str | None:
        """What stays on the device although nothing should run there; None when it is clean, at once or soon."""
        gives_up_s = time.monotonic() + SETTLE_S
        while (found := _dirt(self.read())) is not None and time.monotonic() < gives_up_s:
            time.sleep(_POLL_S)
        return found

    def require_clean(self, when: str) -> None:
        """Put the GPU into quarantine, and raise Unfit, unless it is clean."""
        try:
            dirt = self.dirt()
        except GpuUnreadable as problem:
            dirt = str(problem)
        if dirt is not None:
            reason = f"Not clean {when} a run: {dirt}"
            self.gpu.quarantine(reason, timezone.now())
            raise Unfit(f"The GPU {self.gpu.uuid} is in quarantine. {reason} Look at it, then release it in the admin.")


@contextmanager
def held_gpu(holder: str) -> Iterator[HeldGpu | None]:
    """The lease of this worker's GPU, found clean before and after; None for a worker that has no GPU.

    Raises Unfit when the GPU is in quarantine, another worker has it, or it cannot be read or is not clean.
    """
    uuid = settings.WORKER_GPU_UUID
    if not uuid:
        yield None
        return
    try:
        reader = open_reader()
        reader.read(uuid)
    except GpuUnreadable as problem:
        raise Unfit(str(problem)) from problem
    held = HeldGpu(_lease(uuid, holder), reader)
    try:
        held.require_clean("before")
        yield held
        held.require_clean("after")
    finally:
        held.gpu.give_back()


def _lease(uuid: str, holder: str) -> Gpu:
    gpu = Gpu.acquire(uuid, holder, timezone.now())
    if gpu is not None:
        return gpu
    found = Gpu.objects.get(uuid=uuid)
    if found.quarantined_at is not None:
        raise Unfit(f"The GPU {uuid} is in quarantine. {found.quarantine_reason} Release it in the admin.")
    raise Unfit(f"The GPU {uuid} is held by the worker {found.holder}: give each worker a GPU of its own.")


def _dirt(reading: GpuReading) -> str | None:
    if reading.process_ids:
        return f"the processes {', '.join(map(str, reading.process_ids))} still use it."
    if reading.memory_used_bytes > settings.GPU_IDLE_BYTES_MAX:
        return f"{reading.memory_used_bytes >> 20} MiB of its memory are taken."
    return None
