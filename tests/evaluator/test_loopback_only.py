"""The whole evaluator runs where there is no network but a loopback interface."""

import os
import subprocess
import sys
from pathlib import Path

import loopback_only
import pytest

from tiltyard_eval.results import load_result


@pytest.mark.slow
def test_evaluation_without_any_network(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this account may not make a network namespace")
    command = ["unshare", "--net", sys.executable, loopback_only.__file__, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    score = load_result(tmp_path / "out" / "result.json").score
    assert score is not None
    assert score.value == 1.0
