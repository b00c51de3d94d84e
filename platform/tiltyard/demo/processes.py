"""The demo's own processes: the web server and two workers. Each is ended by its process id."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tiltyard.demo.place import DemoPlace

_WEB_READY_S = 180.0  # a second on a free machine; one that died is found at once
_TERM_WAIT_S = 8.0
_QUIT_WAIT_S = 8.0
_LOG_TAIL_BYTES = 4000


class ProcessError(Exception):
    """A process of the demo ended by itself; the message holds the end of its log."""


@dataclass(frozen=True)
class Running:
    """A started process and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path

    def check(self) -> None:
        """Raise ProcessError when the process is no longer there."""
        if self.process.poll() is not None:
            tail = self.log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
            raise ProcessError(
                f"The {self.name} ended (status {self.process.returncode}). {self.log_path} says:\n{tail}"
            )

    def stop(self) -> None:
        """End it. A Celery worker finishes its task on SIGTERM, gives it up on SIGQUIT; a run given up is retried."""
        for number, wait_s in ((signal.SIGTERM, _TERM_WAIT_S), (signal.SIGQUIT, _QUIT_WAIT_S), (signal.SIGKILL, None)):
            if self.process.poll() is not None:
                return
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)


def web_command(place: DemoPlace) -> list[str]:
    """The web server, on the socket that it inherits."""
    command = [sys.executable, "-m", "gunicorn", "tiltyard.asgi:application", "-k", "uvicorn_worker.UvicornWorker"]
    # A live page keeps its connection open, which a graceful end would wait for.
    return [*command, "--bind", f"fd://{place.listener.fileno()}", "--workers", "2", "--graceful-timeout", "3"]


def worker_command(queue: str, processes: int = 1) -> list[str]:
    """The worker that evaluates, one run at a time."""
    command = [sys.executable, "-m", "celery", "-A", "tiltyard", "worker", "--loglevel", "info"]
    return [*command, "-Q", queue, "-c", str(processes), "-n", f"{queue}@%h"]


def maintenance_command(data_dir: Path) -> list[str]:
    """The worker of the periodic jobs, with the clock that starts them; there is one in the whole system."""
    command = [*worker_command("maintenance", processes=2), "-B"]
    return [*command, "--schedule", str(data_dir / "celerybeat-schedule")]


@contextlib.contextmanager
def started(place: DemoPlace, name: str, command: list[str]) -> Iterator[Running]:
    """Run a process, in a session of its own so that Ctrl-C reaches it only through us."""
    # Should we be killed, the kernel ends it: util-linux's setpriv asks for that and becomes the command.
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "QUIT", *command]
    log_path = place.log_dir / f"{name}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | place.environment,
            pass_fds=[place.listener.fileno()] if name == "web" else [],
        )
    running = Running(name, process, log_path)
    try:
        yield running
    finally:
        running.stop()


def wait_for_web(web: Running, address: str) -> None:
    """Until the home page answers."""
    deadline = time.monotonic() + _WEB_READY_S
    while time.monotonic() < deadline:
        web.check()
        with contextlib.suppress(URLError, ConnectionError, TimeoutError), urlopen(address, timeout=5):  # noqa: S310
            return
        time.sleep(0.1)
    raise ProcessError(f"{address} did not answer within {_WEB_READY_S:.0f} s; see {web.log_path}.")
