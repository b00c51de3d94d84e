"""A short round of the chaos benchmark: parts of a private site are killed while it works, and no run is the worse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from services_for_tests import REPOSITORY_DIR

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(600)]


def test_twenty_runs_survive(tmp_path: Path) -> None:
    script = REPOSITORY_DIR / "benchmarks" / "queue" / "chaos.py"
    command = [sys.executable, str(script), "--runs", "20", "--seed", "7", "--minutes", "8"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert report["kills_in_all"] > 0
