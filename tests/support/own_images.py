"""The images of these very files: what the worker's own version of the evaluator is, changes with every edit."""

import subprocess
import sys
from functools import cache
from pathlib import Path

_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "base_images.py"


@cache
def make_own_images() -> None:
    """Make the base images that are missing or out of date, once in a session."""
    subprocess.run([sys.executable, str(_SCRIPT)], check=True, timeout=900)
