"""Real worker processes on a real queue: one is killed and the next finishes its run; one is asked to stop."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import tiny_server
from bundles_for_tests import write_bundle
from own_images import make_own_images
from uploads_for_tests import context_archive

from tiltyard_sandbox.images import build_image, remove_image
from tiltyard_sandbox.leftovers import find_leftovers
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.owners import RUN_TAG

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.slow]

INSTANCE = "test-worker-process"
# Handed to a process of its own, as this one's settings are made already.
SUBMIT = """
import sys, django
django.setup()
from pathlib import Path
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone
from tiltyard.accounts.models import User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.submissions.intake import accept_upload
call_command("migrate", verbosity=0)
competition = import_bundle(Path(sys.argv[1]), secrets_dir=settings.SECRETS_DIR)
owner = User.objects.create_user("owner", "owner@example.org", "correct horse battery")
path = Path(sys.argv[2])
accept_upload(owner=owner, competition=competition, track=competition.tracks.get(), path=path, filename=path.name,
              now=timezone.now())
"""


class System:
    """A database, a broker and the workers on them, each a process group that can be killed whole."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        self._directory = directory
        self.environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tiltyard.settings",
            "TILTYARD_DATA_DIR": str(directory),
            "TILTYARD_DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
            "TILTYARD_REDIS_URL": redis_url,
            "TILTYARD_INSTANCE": INSTANCE,
            "TILTYARD_RUN_LEASE_S": "5",
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def python(self, *arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], env=self.environment, check=True, timeout=120)

    def worker(self, queue: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "tiltyard", "worker", "-Q", queue, "-c", "1"]
        log = (self._directory / f"{queue}-{len(self._processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [*command, "-n", f"{queue}-{len(self._processes)}@test", *options],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def run(self) -> tuple[str, int]:
        """The state and the attempt of the one run."""
        with sqlite3.connect(self._directory / "db.sqlite3", timeout=20) as database:
            row = database.execute("SELECT state, attempt FROM submissions_run").fetchone()
        return str(row[0]), int(row[1])

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in sorted(self._directory.glob("*.log")))

    def stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def system(tmp_path: Path, redis_url: str, docker_client: docker.DockerClient) -> Iterator[System]:
    make_own_images()
    made = System(tmp_path, redis_url)
    yield made
    made.stop()


def until(system: System, condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, system.logs()
        time.sleep(0.1)


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
