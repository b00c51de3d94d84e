"""A whole private site as processes that can be killed and started again: PostgreSQL, Redis, web, workers."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from containers import Engine

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests" / "support")]

import services  # noqa: E402  from scripts/

HERE = Path(__file__).resolve().parent
READY_S = 90.0


class Part:
    """One process group of the site, which comes back under the same address after it was killed."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        *,
        is_ready: Callable[[], bool] | None = None,
        environment: dict[str, str] | None = None,
        user: str | None = None,
        given: str = "",
    ) -> None:
        self.name = name
        self._command = list(command)
        self._log = directory / f"{name}.log"
        self._is_ready = is_ready
        self.environment = os.environ | (environment or {})
        self._user = user
        self._given = given
        self._process: subprocess.Popen[bytes] | None = None
        self.is_wanted = False  # while it is to run: not before its first start, nor between a kill and the next one

    def start(self, *, wait: bool = True) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
            )
        self.is_wanted = True
        assert self._process.stdin is not None  # noqa: S101  PIPE was asked for
        with contextlib.suppress(BrokenPipeError), self._process.stdin:
            self._process.stdin.write(self._given.encode())
        if wait and self._is_ready is not None:
            deadline = time.monotonic() + READY_S
            while not self._is_ready():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{self.name} did not get ready:\n{self.log_end()}")
                time.sleep(0.05)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def signal(self, number: signal.Signals) -> None:
        """To the whole group: SIGKILL leaves none of its processes."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.is_wanted = False
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def ask_to_stop(self, timeout_s: float) -> bool:
        """SIGTERM to the main process alone, as a service manager does; whether it ended by itself in time."""
        self.is_wanted = False
        if self._process is None:
            return True
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
            self.signal(signal.SIGKILL)  # what it may have left
            return True
        self.kill()
        return False

    def log_end(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]


class System:
    """The site. Its parts are attributes; `environment` is what each of its programs is started with."""

    def __init__(self, directory: Path, *, workers: int, settings: dict[str, str], is_durable: bool = False) -> None:
        self.directory = directory
        self.engine: Engine | None = None  # where it has one of its own
        self._user = services._unprivileged_user() if os.geteuid() == 0 else None
        self.redis_port, self.web_port, self.postgres_port = (services.free_port() for _ in range(3))
        password = secrets.token_urlsafe(18)
        database = f"postgresql://tiltyard:{password}@127.0.0.1:{self.postgres_port}/postgres"
        self.environment = {
            "DJANGO_SETTINGS_MODULE": "tiltyard.settings",
            "TILTYARD_DATA_DIR": str(directory / "data"),
            "TILTYARD_DATABASE_URL": database,
            "TILTYARD_REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "TILTYARD_SITE_URL": f"http://127.0.0.1:{self.web_port}",
            "TILTYARD_API_ADDRESS_RATE": "",
            "TILTYARD_API_CALLER_RATE": "",
            **settings,
        }
        self.postgres = self._postgres(password, is_durable=is_durable)
        self.redis = Part(
            "redis",
            [services.find_program("redis-server"), "-"],
            directory,
            is_ready=lambda: _listens(self.redis_port),
            given=f'port {self.redis_port}\nbind 127.0.0.1\nsave ""\nappendonly no\nmaxmemory-policy noeviction\n',
        )
        python = sys.executable
        self.web = self._program(
            "web",
            [
                python,
                "-m",
                "uvicorn",
                "tiltyard.asgi:application",
                "--port",
                str(self.web_port),
                "--log-level",
                "warning",
            ],
            is_ready=lambda: _listens(self.web_port),
        )
        beat = ["-B", "--schedule", str(directory / "beat")]
        celery = [python, "-m", "celery", "-A", "tiltyard", "worker", "-Q", "maintenance", "-c", "1", *beat]
        self.maintenance = self._program("maintenance", [*celery, "-n", "maintenance@chaos"])
        self.workers = [
            self._program(
                f"worker-{number}",
                [python, str(HERE / "stub.py"), "worker", "-Q", "cpu", "-c", "1", "-n", f"worker-{number}@chaos"],
            )
            for number in range(workers)
        ]

    @property
    def parts(self) -> list[Part]:
        return [self.postgres, self.redis, self.web, self.maintenance, *self.workers]

    def stop(self) -> None:
        for part in reversed(self.parts):
            part.kill()

    def logs(self) -> str:
        return "\n".join(f"== {part.name}\n{part.log_end()}" for part in self.parts)

    def keep_up(self) -> list[str]:
        """Start again whatever has ended by itself, as a service manager does; the names of those."""
        ended = [part for part in self.parts if part.is_wanted and part.pid is None]
        for part in ended:
            part.start(wait=False)
        return [part.name for part in ended]

    def _program(self, name: str, command: list[str], is_ready: Callable[[], bool] | None = None) -> Part:
        return Part(name, command, self.directory, environment=self.environment, is_ready=is_ready)

    def _postgres(self, password: str, *, is_durable: bool) -> Part:
        home = self.directory / "postgres"
        home.mkdir()
        (home / "password").write_text(password)
        if self._user:
            self.directory.chmod(0o755)
            for path in (home, home / "password"):
                shutil.chown(path, self._user, self._user)
        initdb = [services.find_program("initdb"), "--pgdata", str(home / "data"), "--username", "tiltyard"]
        initdb += ["--pwfile", str(home / "password"), "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync"]
        subprocess.run(
            initdb,
            check=True,
            capture_output=True,
            cwd=home,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
        )
        options = {"port": self.postgres_port, "listen_addresses": "127.0.0.1", "unix_socket_directories": home}
        # The machine itself does not fail here, so what was written is there after a kill, synced or not.
        options |= {} if is_durable else {"fsync": "off"}
        command = [services.find_program("postgres"), "-D", str(home / "data")]
        command += [f"--{key}={value}" for key, value in options.items()]
        ready = [services.find_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.postgres_port)]
        return Part(
            "postgres",
            command,
            self.directory,
            user=self._user,
            is_ready=lambda: subprocess.run(ready, check=False).returncode == 0,
        )


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running_system(*, workers: int, settings: dict[str, str], is_durable: bool = False) -> Iterator[System]:
    """A site with its tables and one competition; removed at the end. `is_durable`: commits wait for the disk."""
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="tiltyard-chaos-", ignore_cleanup_errors=True) as name:
        system = System(Path(name), workers=workers, settings=settings, is_durable=is_durable)
        try:
            system.postgres.start()
            system.redis.start()
            os.environ |= system.environment
            _prepare(Path(name))
            yield system
        finally:
            system.stop()


def _end(number: int, _frame: object) -> None:
    """So that what was started is ended, too."""
    raise SystemExit(128 + number)


def _prepare(directory: Path) -> None:
    import django  # noqa: PLC0415 - the settings are read now

    django.setup()
    from bundles_for_tests import write_bundle  # noqa: PLC0415
    from django.conf import settings  # noqa: PLC0415
    from django.core.management import call_command  # noqa: PLC0415

    from tiltyard.competitions.bundle import import_bundle  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    competition = import_bundle(write_bundle(directory / "bundle"), secrets_dir=settings.SECRETS_DIR)
    competition.phases.update(concurrent_quota=0)
