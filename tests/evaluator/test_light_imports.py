"""The platform and the participants' command import parts of the evaluator: those must stay cheap."""

import subprocess
import sys

import pytest

HEAVY = ("aiohttp", "datasets", "django", "jinja2", "lm_eval", "numpy", "rich", "torch", "transformers")


LIGHT = ("__main__", "commands.report", "commands.run", "config", "errors", "identity", "report", "results", "suite")


@pytest.mark.parametrize("module", LIGHT)
def test_module_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, tiltyard_eval.{module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["runner", "session", "outcome", "harness"])
def test_lm_eval_is_imported_only_when_a_suite_is_evaluated(module: str) -> None:
    code = f"import sys, tiltyard_eval.{module}; print('lm_eval' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
