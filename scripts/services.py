"""Run a command beside private services, and stop what was started whatever happens.

    python scripts/services.py run --redis --docker --postgres -- COMMAND ...

Redis: a private server on a free loopback port, nothing kept on disk; its address is in TILTYARD_REDIS_URL.
Docker: an engine that already answers is used as it is; otherwise `dockerd` is started and stopped again.
PostgreSQL: a private cluster for tests in a temporary directory; its address is in TILTYARD_TEST_POSTGRES_URL.

Each service is a child process in a session of its own, ended by its process id, and ended by the kernel should this
script be killed. What a service says goes to var/log. Needs only the standard library, because it runs before
anything is installed.
"""

import argparse
import contextlib
import ctypes
import grp
import http.client
import os
import pwd
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

REPOSITORY_DIR = Path(__file__).resolve().parents[1]
LOG_DIR = Path(os.environ.get("TILTYARD_DATA_DIR", REPOSITORY_DIR / "var")) / "log"
DEFAULT_DOCKER_SOCKET = Path("/var/run/docker.sock")
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ServiceError(Exception):
    """A service did not start; the message names the program, what it said, and what to do."""


def find_program(name: str) -> str:
    """The path of a program, also where only root's PATH or Debian's PostgreSQL directory holds it."""
    directories = [os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    directories += [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join(directories))
    if found is None:
        raise ServiceError(f"{name} is not installed: run scripts/setup.sh first.")
    return found


def free_port() -> int:
    """A loopback TCP port that nobody listens on at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts_connections(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running(
    arguments: Sequence[str],
    *,
    is_ready: Callable[[], bool],
    stop_signal: signal.Signals = signal.SIGTERM,
    user: str | None = None,
    log_name: str | None = None,
    given: str = "",
) -> Iterator[None]:
    """Start a server, wait until `is_ready`, and end exactly this process at the end; `given` is its standard input."""
    name = Path(arguments[0]).name if log_name is None else log_name
    LOG_DIR.mkdir(parents=True, exist_ok=True)
    log_path = LOG_DIR / f"{name}.log"
    libc = ctypes.CDLL(None)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # One thread only, so a function between fork and exec is safe. It runs after the change of user.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, stop_signal),  # noqa: PLW1509
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    try:
        assert process.stdin is not None  # noqa: S101  for the type checker: PIPE was asked for
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(given.encode())
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                said = log_path.read_text(errors="replace")[-2000:]
                raise ServiceError(f"{name} did not get ready. The end of {log_path}:\n{said}")
            time.sleep(0.05)
        yield
    finally:
        stop(process, stop_signal)


def stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    """Ask a process to end, and after a while make it."""
    if process.poll() is None:
        process.send_signal(stop_signal)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis() -> Iterator[dict[str, str]]:
    """A Redis server that only this command knows the password of."""
    port, password = free_port(), secrets.token_urlsafe(18)
    configuration = {
        "port": str(port),
        "bind": "127.0.0.1",
        "requirepass": password,
        "save": '""',
        "appendonly": "no",
        "maxmemory-policy": "noeviction",
    }
    # The configuration goes in through standard input: on the command line every user could read the password.
    given = "".join(f"{key} {value}\n" for key, value in configuration.items())
    program = find_program("redis-server")
    with running([program, "-"], is_ready=lambda: accepts_connections(port), given=given):
        yield {"TILTYARD_REDIS_URL": f"redis://:{password}@127.0.0.1:{port}/0"}


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


def engine_answers(path: Path) -> bool:
    """Whether a Docker engine answers a ping at this socket; PermissionError when it may not be asked."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.client.OK
    except PermissionError:
        raise ServiceError(
            f"You may not use the Docker engine at {path}: join the group docker, or use root."
        ) from None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def docker() -> Iterator[dict[str, str]]:
    """A Docker engine: the one at DOCKER_HOST or at the usual socket if it answers, else one of our own there."""
    host = os.environ.get("DOCKER_HOST") or f"unix://{DEFAULT_DOCKER_SOCKET}"
    if not host.startswith("unix://"):
        yield {}  # somebody's engine on the network: not ours to start
        return
    path = Path(host.removeprefix("unix://"))
    if engine_answers(path):
        yield {}
        return
    if os.geteuid() != 0:
        raise ServiceError(f"No Docker engine answers at {path}, and only root can start one: start it first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments = [find_program("dockerd"), "--host", host]
    if path != DEFAULT_DOCKER_SOCKET:
        # A second engine must share neither files nor the bridge docker0 with the first, so it gets a network namespace
        # of its own: its containers reach each other, and nothing outside.
        root = path.parent
        arguments = [find_program("unshare"), "--net", *arguments]
        arguments += ["--data-root", f"{root}/data", "--exec-root", f"{root}/exec", "--pidfile", f"{root}/docker.pid"]
    print(f"No Docker engine answers at {path}: starting dockerd, log in {LOG_DIR / 'dockerd.log'}", flush=True)
    with running(arguments, is_ready=lambda: path.exists() and engine_answers(path), log_name="dockerd"):
        yield {}


@contextlib.contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """A PostgreSQL cluster in a temporary directory, on a free loopback port. PostgreSQL refuses to run as root."""
    user = _unprivileged_user() if os.geteuid() == 0 else None
    port, password = free_port(), secrets.token_urlsafe(18)
    directory = Path(tempfile.mkdtemp(prefix="tiltyard-postgres-"))
    try:
        password_file = directory / "password"
        password_file.write_text(password)
        if user is not None:
            for path in (directory, password_file):
                shutil.chown(path, user, user)
        data = directory / "data"
        arguments = [find_program("initdb"), "--pgdata", str(data), "--username", "tiltyard"]
        arguments += ["--pwfile", str(password_file), "--auth", "scram-sha-256"]
        arguments += ["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        made = subprocess.run(
            arguments,
            cwd=directory,
            capture_output=True,
            check=False,
            text=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
        if made.returncode != 0:
            raise ServiceError(f"initdb failed:\n{made.stderr[-2000:]}")
        options = {"port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": str(directory)}
        options |= {"fsync": "off", "full_page_writes": "off"}  # the cluster is thrown away: nothing to keep safe
        arguments = [find_program("postgres"), "-D", str(data)]
        arguments += [f"--{key}={value}" for key, value in options.items()]
        with running(
            arguments, is_ready=lambda: _postgres_is_up(port), user=user, stop_signal=signal.SIGINT
        ):  # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client
            yield {"TILTYARD_TEST_POSTGRES_URL": f"postgresql://tiltyard:{password}@127.0.0.1:{port}/postgres"}
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _postgres_is_up(port: int) -> bool:
    program = find_program("pg_isready")
    asked = subprocess.run([program, "-q", "-h", "127.0.0.1", "-p", str(port)], check=False)
    return asked.returncode == 0


def _unprivileged_user() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            grp.getgrnam(name)
            return pwd.getpwnam(name).pw_name
    raise ServiceError("There is neither a user postgres nor a user nobody to run PostgreSQL as.")


def run_command(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command in the foreground, pass signals on to it, and return its exit status as a shell would."""
    process = subprocess.Popen(command, env=os.environ | environment)

    def forward(number: int, _frame: object) -> None:
        # A terminal has sent Ctrl-C to the whole foreground group already: a second one would cut the clean-up short.
        if not (number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty()):
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    status = process.wait()
    return 128 - status if status < 0 else status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(required=True)
    run = subparsers.add_parser("run", help="run a command beside services")
    for name in ("redis", "docker", "postgres"):
        run.add_argument(f"--{name}", action="store_true")
    run.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args()

    def interrupted(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    environment: dict[str, str] = {}
    try:
        with contextlib.ExitStack() as services:
            for wanted, service in ((options.redis, redis), (options.docker, docker), (options.postgres, postgres)):
                if wanted:
                    environment |= services.enter_context(service())
            return run_command(options.command, environment)
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
