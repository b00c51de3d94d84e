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


@pytest.mark.parametrize("module", ["runner", "session", "harness", "outcome"])
def test_lm_eval_and_scipy_wait_until_they_are_needed(module: str) -> None:
    code = f"import sys, tiltyard_eval.{module}; print({{'lm_eval', 'scipy', 'datasets'}} & sys.modules.keys() or '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


LOADING = """
import sys
from tiltyard_eval.lm_eval_loading import load_evaluate, templates_compiled_once
load_evaluate()
unused = {"chardet", "redis", "scipy", "torch", "transformers", "wcwidth"} & sys.modules.keys()
assert not unused, unused
import chardet, wcwidth  # only shut out while lm-eval loads

from lm_eval import utils
template, docs = "{{a}}{% if b %} yes{% endif %}{% set a = 5 %}", [{"a": 1, "b": 1}, {"a": "x", "b": 0}]
plain, anew = [utils.apply_template(template, doc) for doc in docs], utils.env.from_string
with templates_compiled_once():
    assert utils.env.from_string(template) is utils.env.from_string(template)
    assert [utils.apply_template(template, doc) for doc in docs] == plain == ["1 yes", "x"]
assert utils.env.from_string == anew
"""


def test_lm_eval_loads_without_what_nobody_uses_and_compiles_a_template_once() -> None:
    subprocess.run([sys.executable, "-c", LOADING], check=True)
