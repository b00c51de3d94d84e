"""Real worker processes on a real queue: one is killed and the next finishes its run; one is asked to stop."""

import hashlib
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import tiny_server
from bundles_for_tests import write_bundle
from own_images import make_own_images
from uploads_for_tests import context_archive
from worker_system import INSTANCE, SUBMIT, System, until

from tiltyard_sandbox.images import build_image, remove_image
from tiltyard_sandbox.leftovers import find_leftovers
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.owners import RUN_TAG

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.slow]


@pytest.fixture
def system(tmp_path: Path, redis_url: str, docker_client: docker.DockerClient) -> Iterator[System]:
    make_own_images()
    made = System(tmp_path, redis_url)
    yield made
    made.stop()


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """An archive with a Dockerfile."""
    return context_archive(
        tmp_path / "entry.tar.gz",
        dockerfile='ARG BASE=tiltyard/python:3.11\nFROM ${BASE}\nCOPY . /app\nCMD ["python3", "/app/server.py"]\n',
        files={"server.py": Path(tiny_server.__file__).read_text()},
    )


@pytest.fixture
def saved(built: Path, tmp_path: Path, docker_client: docker.DockerClient) -> Path:
    """The same as a saved image, which the engine has forgotten again."""
    image = build_image(
        docker_client,
        built,
        allowed_bases=["tiltyard/python:3.11"],
        base_args={"BASE": "tiltyard/python:3.11"},
        limits=Limits(),
        on_log=print,
        cancel=threading.Event(),
        owner="test",
        gauge_image=None,
    )
    path = tmp_path / "image.tar"
    with path.open("wb") as file:
        for part in docker_client.api.get_image(image.image_id):
            file.write(part)
    remove_image(docker_client, image.image_id)
    return path


def containers(client: docker.DockerClient) -> list[object]:
    mine = {"label": f"tiltyard.instance={INSTANCE}"}
    return list(client.containers.list(all=True, filters=mine, ignore_removed=True))


@pytest.mark.parametrize(("kind", "is_left"), [("built", "sha256:"), ("saved", RUN_TAG)])
def test_a_killed_workers_run_is_finished_by_the_next(
    system: System,
    tmp_path: Path,
    docker_client: docker.DockerClient,
    request: pytest.FixtureRequest,
    *,
    kind: str,
    is_left: str,
) -> None:
    def images() -> list[str]:
        site = hashlib.sha256(INSTANCE.encode()).hexdigest()[:12]
        return [one.reference for one in find_leftovers(docker_client, site) if not one.is_container]

    archive: Path = request.getfixturevalue(kind)
    bundle = write_bundle(tmp_path / "bundle", upload_bytes_max="1 GiB")
    system.python("-c", SUBMIT, str(bundle), str(archive))
    first = system.worker("cpu")
    until(system, lambda: len(containers(docker_client)) == 2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert system.run() == ("evaluating", 1)
    assert containers(docker_client), "the containers outlive their worker"
    assert any(reference.startswith(is_left) for reference in images()), "and so does the image"

    system.worker("maintenance", "-B", "--schedule", str(tmp_path / "beat"))
    system.worker("cpu")
    until(system, lambda: system.run()[0] in {"scored", "failed", "cancelled"})
    assert system.run() == ("scored", 2), system.logs()
    until(system, lambda: containers(docker_client) == [] == images())
    with sqlite3.connect(tmp_path / "db.sqlite3") as database:
        assert database.execute("SELECT COUNT(*) FROM submissions_suiteresult").fetchone() == (2,)
        messages = [row[0] for row in database.execute("SELECT message FROM submissions_runevent ORDER BY id")]
    assert "The platform had a problem; the run is queued again." in messages
    assert "Attempt 2 began." in messages


def test_a_worker_that_is_asked_to_stop_gives_its_run_back(
    system: System, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    archive = context_archive(
        tmp_path / "entry.tar.gz",
        dockerfile='FROM tiltyard/python:3.11\nCOPY . /app\nENV TINY_MODE=slow\nCMD ["python3", "/app/server.py"]\n',
        files={"server.py": Path(tiny_server.__file__).read_text()},
    )
    system.environment |= {"TILTYARD_WORKER_DRAIN_S": "1"}
    system.python("-c", SUBMIT, str(write_bundle(tmp_path / "bundle")), str(archive))
    worker = system.worker("cpu")
    until(system, lambda: len(containers(docker_client)) == 2)
    worker.send_signal(signal.SIGTERM)  # to its main process alone, as a service manager does
    assert worker.wait(timeout=60) == 0
    assert containers(docker_client) == []
    assert system.run() == ("queued", 1), system.logs()
    with sqlite3.connect(tmp_path / "db.sqlite3") as database:
        (faults,) = database.execute("SELECT faults FROM submissions_run").fetchone()
        messages = [row[0] for row in database.execute("SELECT message FROM submissions_runevent ORDER BY id")]
    assert faults == 0
    assert messages[-1] == "The worker was stopped; the run is queued again."
