"""What a suite declares about itself, and the task files that ask for log-likelihoods or are lm-eval's own."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from eval_suites import make_suite, run_evaluator
from likelihood_suites import make_likelihood_suite
from lm_eval_grid import make_grid

from tiltyard_eval.suite import ChatOptions, SuiteError, load_suite, lock_suite, verify_suite

TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    return make_likelihood_suite(tmp_path / "scored", types=TYPES).root


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(doc_to_text="{{ ''.__class__ }}"), "doc_to_text must be"),
        (lambda c: c.update(doc_to_target="{{ cycler.__init__ }}"), "doc_to_target must be"),
        (lambda c: c.update(doc_to_choice="{{ ''.__class__ }}"), "doc_to_choice must be"),
        (lambda c: c.update(process_results="x"), "unknown keys"),
        (lambda c: c.update(filter_list=[]), "unknown keys"),
        (lambda c: c.update(target_delimiter="x"), "target_delimiter"),
        (lambda c: c.update(metric_list=[]), "metric_list must hold"),
        (lambda c: c.update(metric_list=[{"metric": "exact_match"}]), "metric_list must name"),
        (lambda c: c["metric_list"][0].update(aggregation="mean"), "metric_list must name"),
        (lambda c: c.update(num_fewshot=1), "num_fewshot must be 0"),
    ],
)
def test_scored_task_has_a_fixed_shape(scored: Path, name: str, change: Callable[[dict], object], message: str) -> None:
    edit(scored / "tasks" / f"{name}.yaml", change)
    with pytest.raises(SuiteError, match=message):
        load_suite(scored, require_lock=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "p", "answer": "a", "choices": ["a"]}', "2 to 32"),
        ('{"prompt": "p", "answer": "a", "choices": ["a", "a"]}', "must differ"),
        ('{"prompt": "p", "answer": "c", "choices": ["a", "b"]}', "one of them"),
        ('{"prompt": "p", "answer": "a", "choices": ["a", 1]}', "a choice: must be text"),
        ('{"prompt": "p", "answer": "2001-01-01", "choices": ["2001-01-01", "b"]}', "date"),
        ('{"prompt": 1, "answer": "a", "choices": ["a", "b"]}', "prompt: must be text"),
        ('{"prompt": "p", "answer": "a", "choices": ["a", "b"], "more": 1}', "no keys but"),
    ],
)
def test_scored_line_is_checked(scored: Path, line: str, message: str) -> None:
    (scored / "data" / "multiple_choice.jsonl").write_text(line + "\n")
    with pytest.raises(SuiteError, match=message):
        load_suite(scored, require_lock=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.update(trusts_server="yes"), "trusts_server must be true or false"),
        (lambda meta: meta.update(trusts_server=False), "contains the gold answer"),
        (lambda meta: meta.update(format="helm"), "format must be one of"),
        (lambda meta: meta.update(format="lm-eval"), "may run any code; pass --trust-suite"),
        (lambda meta: meta.update(network=True), "network is for suites of format lm-eval"),
        (lambda meta: meta.update(chat=True), "chat: must be a mapping"),
        (lambda meta: meta.update(chat={"template": "x"}), "chat: must be a mapping"),
        (lambda meta: meta["tasks"][0].update(metric=["acc"]), "metric of a task: must be text"),
    ],
)
def test_declaration_is_checked(scored: Path, change: Callable[[dict], object], message: str) -> None:
    edit(scored / "suite.yaml", change)
    with pytest.raises(SuiteError, match=message):
        load_suite(scored, require_lock=False)


def test_conversations_are_declared_with_their_options(tmp_path: Path) -> None:
    root = make_suite(tmp_path / "suite").root
    edit(root / "suite.yaml", lambda meta: meta.update(chat={"system": "Be brief.", "multiturn": True}))
    assert lock_suite(root).chat == ChatOptions("Be brief.", multiturn=True)


def test_lm_eval_suite_is_locked_byte_by_byte_and_loaded_only_when_trusted(tmp_path: Path) -> None:
    root = make_grid(tmp_path / "grid").root
    assert verify_suite(root, trusted=True).foreign
    with pytest.raises(SuiteError, match="pass --trust-suite"):
        verify_suite(root)
    functions = root / "tasks" / "utils.py"
    functions.write_text(functions.read_text() + "\n")
    with pytest.raises(SuiteError, match=r"differs from its lock in \['tasks/utils.py'\]"):
        verify_suite(root, trusted=True)


def test_without_trust_a_function_is_never_imported(tmp_path: Path) -> None:
    root = make_grid(tmp_path / "grid").root
    proof = tmp_path / "ran"
    (root / "tasks" / "utils.py").write_text(f"open({str(proof)!r}, 'w').close()\n")
    lock_suite(root, trusted=True)
    done = run_evaluator("run", "--url", "http://127.0.0.1:9", "--suite", root, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "pass --trust-suite" in done.stdout
    assert not proof.exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "tasks" / "__pycache__").mkdir(), "cache does not belong"),
        (lambda root: (root / "tasks" / "more.yaml").symlink_to("/etc/passwd"), "only plain files"),
        (lambda root: os.mkfifo(root / "data" / "pipe"), "only plain files"),
        (lambda root: (root / "setup.py").write_text(""), "only plain files"),
        (lambda root: (root / "src").mkdir(), "only plain files"),
    ],
)
def test_lm_eval_suite_holds_plain_files_in_known_places(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    root = make_grid(tmp_path / "grid").root
    spoil(root)
    with pytest.raises(SuiteError, match=message):
        load_suite(root, trusted=True)
