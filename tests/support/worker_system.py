"""Real worker processes on a real queue, for tests that kill them, stop them or take their services away."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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

    def runs(self) -> list[tuple[str, int]]:
        """The same of all runs, in the order in which they were handed in."""
        with sqlite3.connect(self._directory / "db.sqlite3", timeout=20) as database:
            return database.execute("SELECT state, attempt FROM submissions_run ORDER BY queued_at").fetchall()

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in sorted(self._directory.glob("*.log")))

    def stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def until(system: System, condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, system.logs()
        time.sleep(0.1)
