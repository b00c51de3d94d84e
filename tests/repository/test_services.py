"""scripts/services.py starts private services for one command, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
SERVICES = REPOSITORY_DIR / "scripts" / "services.py"
SHOW_REDIS = "import os; print(os.environ['TILTYARD_REDIS_URL'], flush=True)"

pytestmark = pytest.mark.redis


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"TILTYARD_DATA_DIR": str(tmp_path)}


def start(environment: dict[str, str], code: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, str(SERVICES), "run", "--redis", "--", sys.executable, "-c", code]
    return subprocess.Popen(arguments, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def listens(url: str) -> bool:
    parts = urlsplit(url)
    assert parts.hostname
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname, parts.port or 0)) == 0


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "nothing changed in time"
        time.sleep(0.05)


def test_command_gets_its_redis_and_gives_its_status(environment: dict[str, str]) -> None:
    with start(environment, f"{SHOW_REDIS}; raise SystemExit(7)") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert process.wait(30) == 7
    assert url.startswith("redis://:")
    assert not listens(url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_signal_ends_the_services_too(environment: dict[str, str], number: signal.Signals) -> None:
    with start(environment, f"{SHOW_REDIS}; import time; time.sleep(20)") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert listens(url)
        process.send_signal(number)
        assert process.wait(30) != 0
        wait_until(lambda: not listens(url))


def test_service_that_is_not_installed_is_named() -> None:
    code = "import services; services.find_program('no-such-program')"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=SERVICES.parent, capture_output=True, check=False, text=True
    )
    assert "no-such-program is not installed: run scripts/setup.sh first." in result.stderr
