"""What the worker makes of NVIDIA's management library. Only the library is played: reader, lease and run are real."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_django.fixtures import Settings
from web_rows import Site, make_run

from tiltyard.submissions.models import Gpu
from tiltyard.submissions.states import RunState
from tiltyard.worker import gpus
from tiltyard.worker.execution import execute
from tiltyard.worker.fitness import Unfit
from tiltyard.worker.gpus import GpuUnreadable, Nvml, held_gpu

UUID = "GPU-6f1c2d3e-0000-4a5b-8c9d-001122334455"
MEMORY_V2 = 33554472
OTHER = "GPU-ffffffff-0000-4a5b-8c9d-001122334455"


class NVMLError(Exception):
    """As the library's own."""


@dataclass
class Library:
    """As much of `pynvml` as the worker asks, over one device; an old one has neither rates nor an energy counter."""

    used_bytes: int = 40 << 20
    process_ids: list[int] = field(default_factory=list)
    is_lost: bool = False
    is_old: bool = False
    asked: list[str] = field(default_factory=list)

    def module(self) -> SimpleNamespace:
        return SimpleNamespace(
            NVMLError=NVMLError,
            nvmlMemory_v2=MEMORY_V2,
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByUUID=self._device,
            nvmlDeviceGetMemoryInfo=self._memory,
            nvmlDeviceGetComputeRunningProcesses=lambda _: [SimpleNamespace(pid=pid) for pid in self.process_ids],
            nvmlDeviceGetUtilizationRates=lambda _: self._unless_old(SimpleNamespace(gpu=25)),
            nvmlDeviceGetTotalEnergyConsumption=lambda _: self._unless_old(12_500),
        )

    def _device(self, uuid: str) -> str:
        self.asked.append(uuid)
        if uuid != UUID or self.is_lost:
            raise NVMLError("GPU is lost" if self.is_lost else "Not Found")
        return "device"

    def _memory(self, _device: str, version: int | None = None) -> SimpleNamespace:
        # As the driver counts: the first version has what it keeps for itself among what is used.
        return SimpleNamespace(used=self.used_bytes + (0 if version == MEMORY_V2 else 600 << 20))

    def _unless_old(self, answer: Any) -> Any:
        if self.is_old:
            raise NVMLError("Not Supported")
        return answer


@pytest.fixture
def library(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Library:
    settings.WORKER_GPU_UUID = UUID
    made = Library()
    monkeypatch.setitem(sys.modules, "pynvml", made.module())
    monkeypatch.setattr(gpus, "SETTLE_S", 0.0)
    monkeypatch.setattr("tiltyard.worker.execution.UNFIT_PAUSE_S", 0.0)
    return made


def test_a_reading(library: Library) -> None:
    library.process_ids = [4711]
    found = Nvml().read(UUID)
    assert (found.memory_used_bytes, found.utilisation, found.energy_j) == (40 << 20, 0.25, 12.5)
    assert found.process_ids == (4711,)
    library.is_old = True
    found = Nvml().read(UUID)
    assert (found.utilisation, found.energy_j) == (None, None)
    assert found.memory_used_bytes == 40 << 20


def test_only_the_workers_own_gpu_is_ever_looked_at(db: None, library: Library, settings: Settings) -> None:
    with held_gpu("worker"):
        pass
    assert set(library.asked) == {UUID}
    settings.WORKER_GPU_UUID = OTHER
    with pytest.raises(Unfit, match=f"{OTHER} cannot be read: Not Found"), held_gpu("worker"):
        pytest.fail("it was used")
    with pytest.raises(GpuUnreadable, match="nvidia-smi -L"):
        Nvml().read(OTHER)


def _process(library: Library) -> None:
    library.process_ids = [4711, 4712]


def _memory(library: Library) -> None:
    library.used_bytes = 5 << 30


def _lost(library: Library) -> None:
    library.is_lost = True


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_process, "the processes 4711, 4712 still use it"),
        (_memory, "5120 MiB of its memory are taken"),
        (_lost, "GPU is lost"),
    ],
)
def test_what_a_run_leaves_sets_the_gpu_aside_for_everybody(
    db: None, library: Library, spoil: Callable[[Library], None], said: str
) -> None:
    with pytest.raises(Unfit, match="is in quarantine"), held_gpu("worker-1"):
        spoil(library)
    gpu = Gpu.objects.get()
    assert gpu.quarantine_reason.startswith("Not clean after a run: ")
    assert said in gpu.quarantine_reason
    assert (gpu.holder, gpu.lease_expires_at) == ("", None)
    # The dirt is gone by itself, and yet nobody uses the GPU before somebody has looked.
    library.process_ids, library.used_bytes, library.is_lost = [], 40 << 20, False
    for worker in ("worker-1", "worker-2"):
        with pytest.raises(Unfit, match="Release it in the admin"), held_gpu(worker):
            pytest.fail("it was used")
    gpu.release()
    with held_gpu("worker-2") as held:
        assert held is not None


def test_a_run_that_waits_for_a_gpu_in_quarantine_is_not_spent(
    site: Site, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(site, "waits")
    _process(library)
    for _ in range(2):  # found dirty, then in quarantine
        execute(run.pk, "worker")
    run.refresh_from_db()
    assert (run.state, run.attempt, run.faults) == (RunState.QUEUED, 0, 0)
    assert caplog.text.count("this worker takes no run: The GPU") == 2
    assert Gpu.objects.get().quarantined_at is not None


def test_a_gpu_that_is_lost_before_a_run_is_not_the_runs_affair(
    site: Site, library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(site, "waits")
    library.is_lost = True
    execute(run.pk, "worker")
    run.refresh_from_db()
    assert (run.state, run.attempt) == (RunState.QUEUED, 0)
    assert "GPU is lost" in caplog.text
