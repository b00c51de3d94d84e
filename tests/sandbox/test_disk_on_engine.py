"""The engine's disk on a real engine: measured from inside, kept from filling up, and whose fault it is when it does.

Nothing here fills a disk. The reserve is moved up to just below what is free, so that some hundred megabytes reach it.
"""

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from images_for_tests import MANIFEST, PYTHON_IMAGE, Pack

from tiltyard_sandbox import disk, images
from tiltyard_sandbox.disk import DiskGauge, DiskShare
from tiltyard_sandbox.limits import GIB, MIB, Limits
from tiltyard_sandbox.owners import GAUGE_LABEL, owner_of
from tiltyard_sandbox.verdicts import InfraFault, Reason, SubmissionFault

pytestmark = [pytest.mark.docker, pytest.mark.slow]

OWNER = f"test-{uuid.uuid4().hex[:8]}"
FILL = "for i in $(seq 8); do dd if=/dev/zero of=/x$i bs=1M count=128; done; sleep 600"

# Takes room without writing, so that it does not wait for a busy disk, and goes on until the reserve is surely reached.
TAKE = """
import os, time
for number in range(32):
    with open(f"/x{number}", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 128 * 1024 * 1024)
    time.sleep(0.5)
time.sleep(600)
"""

Build = Callable[..., Any]


@pytest.fixture
def gauges(client: docker.DockerClient) -> Iterator[None]:
    """No gauge outlives its test. Other tests may be using the engine, so only this module's own are looked at."""
    yield
    deadline = time.monotonic() + 30  # the engine answers a removal before it has ended
    while (own := _own_gauges(client)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert own == []


def _own_gauges(client: docker.DockerClient) -> list[str]:
    found = client.containers.list(all=True, filters={"label": GAUGE_LABEL}, ignore_removed=True)
    return [str(one.id) for one in found if owner_of(one.labels[GAUGE_LABEL]) == OWNER]


@pytest.fixture
def build_under_watch(client: docker.DockerClient, pack: Pack, limits: Limits, gauges: None) -> Build:
    """Build a Dockerfile on the bare Python with these steps."""

    def run(steps: str, on_log: Callable[[str], None] = print) -> Any:
        return images.build_image(
            client,
            pack({"Dockerfile": f"FROM {PYTHON_IMAGE}\n{steps}\n".encode(), "tiltyard.yaml": MANIFEST}),
            allowed_bases=[PYTHON_IMAGE],
            base_args={},
            limits=limits,
            on_log=on_log,
            cancel=threading.Event(),
            owner=OWNER,
            gauge_image=PYTHON_IMAGE,
        )

    return run


def free_bytes(client: docker.DockerClient) -> int:
    with DiskGauge(client, PYTHON_IMAGE, owner=OWNER, life_s=60) as gauge:
        return gauge.free_bytes()


def leave_free(client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch, room_bytes: int) -> None:
    """Move the reserve so that this much may still be written."""
    monkeypatch.setattr(disk, "RESERVE_BYTES", free_bytes(client) - room_bytes)
    monkeypatch.setattr(disk, "ROOM_BYTES_MIN", 64 * MIB)


def test_the_gauge_reads_the_disk_that_the_engine_is_on(client: docker.DockerClient, gauges: None) -> None:
    root = Path(client.info()["DockerRootDir"])
    if not root.is_dir():
        pytest.skip("the engine's disk cannot be seen from here, which is what the gauge is for")
    assert free_bytes(client) == pytest.approx(shutil.disk_usage(root).free, abs=GIB)


def test_a_gauge_that_cannot_read_is_ours_and_goes(client: docker.DockerClient, gauges: None) -> None:
    with (
        pytest.raises(InfraFault, match=r"cannot be measured with tiltyard-test/absent:1"),
        DiskGauge(client, "tiltyard-test/absent:1", owner=OWNER, life_s=60),
    ):
        pass
    blind = client.api.import_image_from_data(b"\0" * 1024, changes=["LABEL tiltyard.test=1"])
    image_id = blind.strip().rpartition('"')[0].rpartition('"')[2]
    try:
        with (
            pytest.raises(InfraFault, match="cannot be measured"),
            DiskGauge(client, image_id, owner=OWNER, life_s=60),
        ):
            pass
    finally:
        deadline = time.monotonic() + 30
        while not images.remove_image(client, image_id):  # the engine is still at the gauge's container
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize(
    "steps",
    [f"RUN {FILL}", f"VOLUME /v\nRUN mkdir -p /v; cd /v; {FILL.replace('/x', '/v/x')}"],
    ids=["in the image", "below a volume"],
)
def test_a_build_that_fills_the_disk_is_to_blame(
    client: docker.DockerClient, build_under_watch: Build, monkeypatch: pytest.MonkeyPatch, steps: str
) -> None:
    leave_free(client, monkeypatch, 300 * MIB)
    with pytest.raises(SubmissionFault, match="filled the disk of its machine") as caught:
        build_under_watch(steps)
    assert caught.value.reason is Reason.BUILD_FAILED


def test_bytes_below_a_volume_count_towards_the_images_size(build_under_watch: Build, limits: Limits) -> None:
    with pytest.raises(SubmissionFault, match=r"wrote more than an image may hold|at most \d+ are allowed") as caught:
        build_under_watch(
            "VOLUME /v\nRUN mkdir -p /v; for i in $(seq 12); do dd if=/dev/zero of=/v/$i bs=1M count=100; done"
        )
    assert caught.value.reason in {Reason.BUILD_FAILED, Reason.IMAGE_REJECTED}


@pytest.mark.parametrize("change", ["VOLUME /v", "ONBUILD RUN true"])
def test_a_base_image_that_hides_what_a_build_writes_is_ours_to_mend(
    client: docker.DockerClient, pack: Pack, limits: Limits, change: str
) -> None:
    name = f"tiltyard-test/{uuid.uuid4().hex[:8]}:1"
    made = client.containers.create(PYTHON_IMAGE)
    try:
        made.commit(*name.split(":"), changes=change)
        with pytest.raises(InfraFault, match=f"{name} has {change.split(maxsplit=1)[0]}"):
            images.build_image(
                client,
                pack({"Dockerfile": f"FROM {name}\nRUN true\n".encode(), "tiltyard.yaml": MANIFEST}),
                allowed_bases=[name],
                base_args={},
                limits=limits,
                on_log=print,
                cancel=threading.Event(),
                owner=OWNER,
                gauge_image=None,
            )
    finally:
        made.remove(force=True)
        client.images.remove(name)


def test_a_gauge_that_died_says_so_instead_of_its_last_reading(client: docker.DockerClient, gauges: None) -> None:
    with DiskGauge(client, PYTHON_IMAGE, owner=OWNER, life_s=60) as gauge:
        share = DiskShare(gauge, 0)
        assert not share.is_at_reserve()
        (one,) = (
            found
            for found in client.containers.list(filters={"label": GAUGE_LABEL})
            if owner_of(found.labels[GAUGE_LABEL]) == OWNER
        )
        one.kill()
        deadline = time.monotonic() + 30
        while not gauge.is_over:
            assert time.monotonic() < deadline, "the end of the gauge was not noticed"
            time.sleep(0.05)
        with pytest.raises(InfraFault, match="not measured any more"):
            share.is_at_reserve()
        with pytest.raises(InfraFault, match="not measured any more"):
            share.fault(GIB)


def test_a_reading_goes_stale(client: docker.DockerClient, gauges: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with DiskGauge(client, PYTHON_IMAGE, owner=OWNER, life_s=60) as gauge:
        assert gauge.free_bytes() > 0
        monkeypatch.setattr(disk, "STALE_S", -1.0)
        with pytest.raises(InfraFault, match="not measured any more"):
            gauge.free_bytes()


def test_a_build_whose_gauge_dies_is_stopped_and_ours(client: docker.DockerClient, build_under_watch: Build) -> None:
    def kill_the_gauge(line: str) -> None:
        if line == "running":
            for found in client.containers.list(filters={"label": GAUGE_LABEL}):
                if owner_of(found.labels[GAUGE_LABEL]) == OWNER:
                    found.kill()

    with pytest.raises(InfraFault, match="not measured any more"):
        build_under_watch("RUN echo running; sleep 600", on_log=kill_the_gauge)


def test_what_others_write_is_not_the_builds_fault(
    client: docker.DockerClient, build_under_watch: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_free(client, monkeypatch, 300 * MIB)
    neighbours: list[Any] = []
    seen = DiskShare.is_at_reserve

    def write_beside(share: DiskShare) -> bool:
        if not neighbours:
            neighbours.append(client.containers.run(PYTHON_IMAGE, ["python3", "-c", TAKE], detach=True))
        return seen(share)

    monkeypatch.setattr(DiskShare, "is_at_reserve", write_beside)
    try:
        with pytest.raises(InfraFault, match="almost full"):
            build_under_watch("RUN dd if=/dev/zero of=/own bs=1M count=16; sleep 600")
    finally:
        for neighbour in neighbours:
            neighbour.remove(force=True)


def test_without_room_nothing_is_begun(
    client: docker.DockerClient, build_under_watch: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_free(client, monkeypatch, 32 * MIB)
    monkeypatch.setattr("tiltyard_sandbox.builds._Build.start", lambda *_: pytest.fail("the engine was asked to build"))
    with pytest.raises(InfraFault, match="make room there"):
        build_under_watch("RUN true")


class Readings(DiskGauge):
    """A gauge that says what it is told to, first one thing and then another."""

    def __init__(self, *readings: int) -> None:
        self._left = list(readings)

    def free_bytes(self) -> int:
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]


@pytest.mark.parametrize(
    ("context", "written", "fault"),
    [
        (0, 4 * GIB, SubmissionFault),
        (0, 2 * GIB, SubmissionFault),
        (0, 2 * GIB - 1, InfraFault),
        (2 * GIB, 0, SubmissionFault),  # a COPY that has not ended: the other half is what it has copied so far
        (GIB, 0, InfraFault),
    ],
)
def test_who_wrote_half_of_what_vanished_is_to_blame(context: int, written: int, fault: type[Exception]) -> None:
    share = DiskShare(Readings(6 * GIB, 2 * GIB), context)
    assert type(share.fault(written)) is fault


def test_room_for_the_upload_and_its_copy_is_asked_for() -> None:
    DiskShare(Readings(7 * GIB), 2 * GIB).require_room()
    with pytest.raises(InfraFault, match=r"7\.0 GiB free.*9\.0 GiB"):
        DiskShare(Readings(7 * GIB), 3 * GIB).require_room()
