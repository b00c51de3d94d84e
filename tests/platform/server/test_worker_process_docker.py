"""Real worker processes on a real queue: one is killed without warning, and the next finishes its run."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import tiny_server
from bundles_for_tests import write_bundle
from uploads_for_tests import context_archive

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
def system(tmp_path: Path, redis_url: str) -> Iterator[System]:
    made = System(tmp_path, redis_url)
    yield made
    made.stop()


def until(system: System, condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, system.logs()
        time.sleep(0.1)


def test_a_killed_workers_run_is_finished_by_the_next(
    system: System, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    def containers() -> list[object]:
        mine = {"label": f"tiltyard.instance={INSTANCE}"}
        return list(docker_client.containers.list(all=True, filters=mine, ignore_removed=True))

    archive = context_archive(
        tmp_path / "entry.tar.gz",
        dockerfile='ARG BASE=tiltyard/python:3.11\nFROM ${BASE}\nCOPY . /app\nCMD ["python3", "/app/server.py"]\n',
        files={"server.py": Path(tiny_server.__file__).read_text()},
    )
    system.python("-c", SUBMIT, str(write_bundle(tmp_path / "bundle")), str(archive))
    first = system.worker("cpu")
    until(system, lambda: len(containers()) == 2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert system.run() == ("evaluating", 1)
    assert containers(), "the containers outlive their worker"

    system.worker("maintenance", "-B", "--schedule", str(tmp_path / "beat"))
    system.worker("cpu")
    until(system, lambda: system.run()[0] in {"scored", "failed", "cancelled"})
    assert system.run() == ("scored", 2), system.logs()
    assert containers() == []
    with sqlite3.connect(tmp_path / "db.sqlite3") as database:
        assert database.execute("SELECT COUNT(*) FROM submissions_suiteresult").fetchone() == (2,)
        messages = [row[0] for row in database.execute("SELECT message FROM submissions_runevent ORDER BY id")]
    assert "The platform had a problem; the run is queued again." in messages
    assert "Attempt 2 began." in messages
