"""The GPU's lease and quarantine. Only the device itself is played: everything else is the worker's own."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django.fixtures import Settings
from web_rows import Site, make_run

from tiltyard.evaluation import GpuReading
from tiltyard.submissions.models import Gpu
from tiltyard.submissions.states import RunState
from tiltyard.worker import gpus
from tiltyard.worker.execution import execute
from tiltyard.worker.fitness import Unfit, fit_machine
from tiltyard.worker.gpus import GpuUnreadable, Nvml, held_gpu

UUID = "GPU-6f1c2d3e-0000-4a5b-8c9d-001122334455"
CLEAN = GpuReading(memory_used_bytes=40 << 20, utilisation=0.0, energy_j=10.0, process_ids=())


class Device:
    """What the driver would say, one reading after the other; the last one stays."""

    def __init__(self, *readings: GpuReading) -> None:
        self.readings = list(readings)

    def read(self, uuid: str) -> GpuReading:
        if uuid != UUID:
            raise GpuUnreadable(f"The GPU {uuid} cannot be read: Not Found.")
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


@pytest.fixture
def device(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Device:
    settings.WORKER_GPU_UUID = UUID
    made = Device(CLEAN)
    monkeypatch.setattr(gpus, "open_reader", lambda: made)
    monkeypatch.setattr(gpus, "SETTLE_S", 0.0)
    return made


def test_a_worker_without_a_gpu_holds_none(db: None) -> None:
    with held_gpu("worker") as held:
        assert held is None
    assert not Gpu.objects.exists()


def test_a_clean_gpu_is_held_and_given_back(db: None, device: Device) -> None:
    with held_gpu("worker-1") as held:
        assert held is not None
        assert Gpu.objects.get().holder == "worker-1"
        assert held.renew()
    gpu = Gpu.objects.get()
    assert (gpu.holder, gpu.lease_expires_at, gpu.quarantined_at) == ("", None, None)


def test_two_workers_with_one_uuid_do_not_share_it(db: None, device: Device) -> None:
    with held_gpu("worker-1"), pytest.raises(Unfit, match="held by the worker worker-1"), held_gpu("worker-2"):
        pytest.fail("two hold it")


def test_a_lease_of_a_dead_worker_runs_out(db: None, now: datetime) -> None:
    dead = Gpu.acquire(UUID, "worker-1", now)
    assert dead is not None
    assert Gpu.acquire(UUID, "worker-2", now + timedelta(seconds=59)) is None
    assert dead.renew(now + timedelta(seconds=30))
    assert Gpu.acquire(UUID, "worker-2", now + timedelta(seconds=61)) is None
    heir = Gpu.acquire(UUID, "worker-2", now + timedelta(seconds=91))
    assert heir is not None
    assert not dead.renew(now + timedelta(seconds=92))
    assert not dead.quarantine("I am back.", now)
    assert not dead.give_back()
    assert Gpu.objects.get().holder == "worker-2"


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        (GpuReading(40 << 20, 0.0, None, (4711,)), "processes 4711 still use it"),
        (GpuReading(5 << 30, 0.0, None, ()), "5120 MiB of its memory are taken"),
    ],
)
def test_a_gpu_that_is_not_clean_is_set_aside(db: None, device: Device, reading: GpuReading, said: str) -> None:
    device.readings = [reading]
    with pytest.raises(Unfit, match=said), held_gpu("worker"):
        pytest.fail("it was used")
    gpu = Gpu.objects.get()
    assert said in gpu.quarantine_reason
    device.readings = [CLEAN]
    with pytest.raises(Unfit, match="in quarantine"), held_gpu("worker"):
        pytest.fail("it was used")
    gpu.release()
    with held_gpu("worker") as held:
        assert held is not None


def test_what_a_submission_leaves_is_found_after_its_run(db: None, device: Device) -> None:
    with pytest.raises(Unfit, match="Not clean after a run"), held_gpu("worker"):
        device.readings = [GpuReading(40 << 20, 0.0, None, (12, 13))]
    assert "12, 13" in Gpu.objects.get().quarantine_reason


def test_a_driver_that_is_just_tidying_up_is_given_time(
    db: None, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "SETTLE_S", 30.0)
    monkeypatch.setattr(gpus, "_POLL_S", 0.01)
    with held_gpu("worker") as held:
        assert held is not None
        device.readings = [GpuReading(9 << 30, 0.0, None, ()), GpuReading(2 << 30, 0.0, None, ()), CLEAN]
    assert Gpu.objects.get().quarantined_at is None


def test_a_gpu_that_is_not_there(db: None, device: Device, settings: Settings) -> None:
    settings.WORKER_GPU_UUID = "GPU-none"
    with pytest.raises(Unfit, match="GPU-none cannot be read"), held_gpu("worker"):
        pytest.fail("it was used")


def test_without_a_driver_the_worker_says_so() -> None:
    with pytest.raises(GpuUnreadable, match=r"driver does not answer|not installed"):
        Nvml()


def test_cores_that_make_no_sense_are_named(settings: Settings) -> None:
    settings.WORKER_CPUS = "two"
    with pytest.raises(Unfit, match="TILTYARD_WORKER_CPUS: cpuset must be a list of cores"), fit_machine():
        pytest.fail("it was used")


def test_an_unfit_worker_leaves_the_run_alone(
    site: Site, device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tiltyard.worker.execution.UNFIT_PAUSE_S", 0.0)
    device.readings = [GpuReading(40 << 20, 0.0, None, (4711,))]
    run = make_run(site, "one")
    execute(run.pk, "worker")
    run.refresh_from_db()
    assert (run.state, run.attempt, run.faults) == (RunState.QUEUED, 0, 0)
    assert "this worker takes no run: The GPU" in caplog.text


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
def test_of_many_that_want_it_one_gets_it(transactional_db: None) -> None:
    def take(number: int) -> bool:
        try:
            return Gpu.acquire(UUID, f"worker-{number}", timezone.now()) is not None
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1
