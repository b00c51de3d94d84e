import subprocess
import sys
import time

import pytest

from tiltyard.cli.app import app

COMMANDS = sorted(str(command.name) for command in app.registered_commands)
HEAVY = ("django", "torch", "lm_eval", "docker", "transformers", "celery")


@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "--help"], ["submit", "--help"]])
def test_starts_without_django_and_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom tiltyard.cli.app import run\n"
        f"assert run({arguments!r}) == 0\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_help_is_quick() -> None:
    """Best of five, because the machine may be busy; the bound of 0.4 s is what a person feels as at once."""
    times_s = []
    for _ in range(5):
        started_s = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tiltyard.cli", "--help"], stdout=subprocess.DEVNULL, check=True)
        times_s.append(time.perf_counter() - started_s)
    assert min(times_s) < 0.4


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json_and_help(tiltyard, command: str) -> None:
    ran = tiltyard(command, "--help")
    assert ran.exit_code == 0
    assert "--json" in ran.stdout


def test_no_command_shows_the_help(tiltyard_process) -> None:
    ran = tiltyard_process()
    assert ran.exit_code == 2
    assert "Usage: tiltyard" in ran.stdout + ran.stderr
