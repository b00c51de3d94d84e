"""The reference names every option, reason and kind of fault of the code, and pages name tests that exist."""

import inspect
import re
from pathlib import Path

import pytest
from eval_suites import run_evaluator

import tiltyard_eval
from tiltyard_eval import errors, results

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "evaluator.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["run", "resume", "report", "compare"])
def test_every_option_is_documented(command: str) -> None:
    options = set(re.findall(r"--[a-z-]+", run_evaluator(command, "--help").stdout)) - {"--help"}
    assert options
    assert {option for option in options if option not in PAGE} == set()


def test_every_reason_and_kind_of_fault_is_documented() -> None:
    sources = Path(inspect.getfile(tiltyard_eval)).parent.rglob("*.py")
    kinds = {
        kind
        for source in sources
        for kind in re.findall(r'(?:AnswerFault|super\(\).__init__)\(\s*"([a-z_]+)"', source.read_text())
    }
    assert {"wrong_count", "timeout", "connection", "http_status"} <= kinds
    assert {name for name in kinds | errors.REASONS if f"`{name}`" not in PAGE} == set()


def test_every_field_of_a_result_is_documented() -> None:
    names = {
        name
        for part in (results.Result, results.SuiteRef, results.Score, results.TaskResult, results.Timing)
        for name in part.__dataclass_fields__
    }
    assert {name for name in names if f"`{name}`" not in PAGE} == set()


def test_every_test_that_a_page_names_exists() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    named = {name for page in pages for name in re.findall(r"tests/[\w/]+\.py", page.read_text(encoding="utf-8"))}
    assert len(named) > 20
    assert {name for name in named if not (ROOT / name).is_file()} == set()
    trust = (ROOT / "docs" / "explanation" / "trust.md").read_text(encoding="utf-8")
    for section in re.split(r"^## ", trust, flags=re.MULTILINE)[1:]:
        title = section.splitlines()[0]
        assert "tests/" in section, f"{title}: names no test"
        if title != "Faults of ours":
            assert "**What is left.**" in section, f"{title}: does not say what is not covered"
