"""The bundle of the 2023 challenge: it parses, is locked, imports as a draft, and names tasks that lm-eval has.

Its data are on a hub, so nothing here runs a question of it. Its scoring is held by test_scoring_rules.py.
"""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from django.test import Client
from lm_eval.tasks import TaskManager

from tiltyard.competitions.bundle import BundleError, import_bundle
from tiltyard_eval.suite import load_suite
from tiltyard_eval.tasks import _unloadable

BUNDLE = Path(__file__).parents[3] / "competitions" / "neurips2023"
SUITES = BUNDLE / "suites"


@pytest.mark.parametrize("name", ["open", "hidden"])
def test_the_suites_are_as_locked_and_need_trust_and_a_network(name: str) -> None:
    suite = load_suite(SUITES / name, trusted=True)
    assert (suite.visibility, suite.foreign, suite.network, suite.trusts_server) == (name, True, True, True)
    weights: dict[str, float] = {}
    for task in suite.tasks:
        weights[task.family] = weights.get(task.family, 0.0) + task.weight
    assert weights == {family: pytest.approx(1.0, abs=1e-5) for family in weights}  # every scenario weighs the same


SCENARIOS = {
    "open": {"mmlu", "truthfulqa", "bigbench", "gsm8k", "bbq", "cnn_dailymail"},
    "hidden": {"samsum", "corr2cause", "math", "ethics"},
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_scenario_of_2023_is_missing(name: str) -> None:
    assert {task.family for task in load_suite(SUITES / name, trusted=True).tasks} == SCENARIOS[name]


def test_the_readme_names_what_a_suite_with_data_from_a_hub_needs() -> None:
    (command,) = re.findall(r"python -m tiltyard_eval run .*?\n\n", (BUNDLE / "README.md").read_text(), re.DOTALL)
    assert {"--trust-suite", "--allow-network"} <= set(command.split())


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_machine_without_network_is_told_so(name: str) -> None:
    """In the library's own words only of the open suite: they could quote a hidden question."""
    suite = load_suite(SUITES / name, trusted=True)
    found = _unloadable(suite, suite.tasks[0].name, ConnectionError("Couldn't reach 'x' on the Hub"))
    assert "check this machine's network" in found.message
    assert ("Couldn't reach 'x'" in found.message) == (name == "open")


@pytest.mark.django_db
def test_it_imports_as_a_draft_with_the_rule_and_the_shares_of_2023(tmp_path: Path, client: Client) -> None:
    competition = import_bundle(BUNDLE, secrets_dir=tmp_path, trust_suites=True)
    assert not competition.is_public
    assert client.get(competition.get_absolute_url()).status_code == 404
    assert competition.scoring == {
        "rule": "geometric_mean_of_win_rates",
        "scenario": "family",
        "nulls": "loss",
        "smoothing": 0.5,
    }
    total = sum(suite.weight for suite in competition.suites.all())
    assert {suite.name: suite.weight / total for suite in competition.suites.all()} == {
        "neurips2023-open": pytest.approx(1 / 3),
        "neurips2023-hidden": pytest.approx(2 / 3),
    }
    assert [track.sandbox_limits().evaluate_s for track in competition.tracks.all()] == [3600, 3600]


@pytest.mark.django_db
def test_it_is_not_imported_without_being_trusted(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="--trust-suite"):
        import_bundle(BUNDLE, secrets_dir=tmp_path)


def test_lm_eval_knows_every_task() -> None:
    known = set(TaskManager(include_path=str(SUITES / "hidden" / "tasks")).all_tasks)
    for name in ("open", "hidden"):
        assert {task.name for task in load_suite(SUITES / name, trusted=True).tasks} <= known


@pytest.fixture(scope="module")
def rouge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rouge", SUITES / "hidden" / "tasks" / "rouge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("candidate", "reference", "score"),
    [
        ("police killed the gunman", "police kill the gunman", 0.75),  # Lin 2004, section 3.2
        ("the gunman kill police", "police kill the gunman", 0.5),
        ("Same words.", "same WORDS", 1.0),
        ("", "something", 0.0),
        ("...", "something", 0.0),
    ],
)
def test_rouge_l(rouge: ModuleType, candidate: str, reference: str, score: float) -> None:
    assert rouge.process_results({"summary": reference}, [candidate])["rougeL"] == pytest.approx(score)
