"""The command as a user has it: its own configuration and cache, run in this process or as a real one."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tiltyard.cli.app import run


@dataclass(frozen=True)
class Ran:
    """How one call of the command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """Standard output as one JSON document; fails when there is anything beside it."""
        return json.loads(self.stdout)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("TILTYARD_SERVER", "TILTYARD_TOKEN", "TILTYARD_EVALUATOR_IMAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tiltyard(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command in this process."""

    def call(*arguments: str | Path) -> Ran:
        exit_code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(int(exit_code), captured.out, captured.err)

    return call


@pytest.fixture
def tiltyard_process() -> Callable[..., Ran]:
    """Run the command as a process of its own."""

    def call(*arguments: str | Path, stdin: str = "") -> Ran:
        command = [sys.executable, "-m", "tiltyard.cli", *map(str, arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def submission(tmp_path: Path, tiltyard: Callable[..., Ran]) -> Path:
    """The template, freshly written."""
    directory = tmp_path / "mine"
    assert tiltyard("init", directory).exit_code == 0
    return directory


@pytest.fixture
def unused_port() -> int:
    """A port of this machine at which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def demo_suite() -> Path:
    """The demo competition's open suite."""
    return Path(__file__).resolve().parents[3] / "competitions" / "demo" / "suites" / "open"
