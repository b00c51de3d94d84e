import subprocess
import sys

import pytest

from tiltyard.cli.app import app
from tiltyard.cli.commands import suites

SUITE_COMMANDS = sorted(f"suite {command.name}" for command in suites.app.registered_commands)
COMMANDS = sorted(str(command.name) for command in app.registered_commands) + SUITE_COMMANDS
HEAVY = ("django", "torch", "lm_eval", "docker", "transformers", "celery", "numpy", "aiohttp")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["evaluate", "--help"], ["submit", "--help"], ["suite", "build", "--help"]]
)
def test_starts_without_django_and_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom tiltyard.cli.app import run\n"
        f"assert run({arguments!r}) == 0\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_help_loads_little() -> None:
    """Some 400 modules load in a third of a second; a time of its own would be the machine's, which may be busy."""
    code = "import sys\nfrom tiltyard.cli.app import run\nrun(['--help'])\nprint(len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 500


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json_and_help(tiltyard, command: str) -> None:
    ran = tiltyard(*command.split(), "--help")
    assert ran.exit_code == 0
    assert "--json" in ran.stdout


def test_no_command_shows_the_help(tiltyard_process) -> None:
    ran = tiltyard_process()
    assert ran.exit_code == 2
    assert "Usage: tiltyard" in ran.stdout + ran.stderr
