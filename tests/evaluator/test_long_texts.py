"""Texts longer than the server's context are cut as stock lm-eval cuts them; prompts to be answered are not cut."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eval_suites import RecordingReporter, read_samples
from hypothesis import given, settings
from hypothesis import strategies as st
from likelihood_server import toy_server
from likelihood_suites import make_likelihood_suite

from tiltyard_eval.adapters.windows import Window, last_window, may_be_too_long, rolling_windows
from tiltyard_eval.config import RunConfig
from tiltyard_eval.errors import AnswerFault
from tiltyard_eval.results import Result
from tiltyard_eval.runner import start
from tiltyard_eval.suite import Suite, load_suite, lock_suite

CONTEXT = 40
TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")
# Its own way to a tokenizer, its own default of sending token numbers.
STOCK = """
import json, sys
from pathlib import Path
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from tiltyard_eval.lm_eval_files import write_lm_eval_files
from tiltyard_eval.suite import load_suite

url, suite, context, out = sys.argv[1:]
results = simple_evaluate(
    model="local-completions",
    model_args={"model": "toy", "base_url": url + "/v1/completions", "tokenizer_backend": "remote",
                "max_length": int(context), "num_concurrent": 1, "max_retries": 1},
    tasks=list(load_suite(Path(suite)).task_configs().values()),
    task_manager=TaskManager(include_path=None, include_defaults=False),
    bootstrap_iters=0,
    torch_random_seed=None,
)
write_lm_eval_files(Path(out), results)
"""


def words(count: int, of: int) -> str:
    return " ".join(
        ["Größe", "twelve", "日本", "windows,", "a  b", "🙂", "end."][(n * of + n) % 7] for n in range(count)
    )


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Contexts up to ten times what fits; whole texts that just fit, just do not, and fill many windows."""
    folder = tmp_path_factory.mktemp("long") / "suite"
    make_likelihood_suite(folder, types=TYPES)
    lengths = [1, 2, 5, 8, 9, 10, 11, 12, 30, 100]
    rows: dict[str, list[dict[str, Any]]] = {
        "multiple_choice": [
            {"prompt": f"{words(n, 2)}\nSay {n}:", "answer": str(n), "choices": [str(n), "many words", "17", "x"]}
            for n in lengths
        ],
        "loglikelihood": [{"prompt": f"{words(n, 3)} and {n}", "answer": f"after {n} comes it"} for n in lengths],
        "loglikelihood_rolling": [{"answer": f"{of} {words(n, of)}"} for n in lengths for of in (1, 4)],
    }
    rows["loglikelihood_rolling"] += [{"answer": "a" * 4 * tokens} for tokens in range(CONTEXT - 4, CONTEXT + 4)]
    for name, lines in rows.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "data" / f"{name}.jsonl").write_text(text)
    return lock_suite(folder)


def run(out: Path, suite: Suite, url: str, **options: object) -> Result:
    config = RunConfig(url, "openai", str(suite.root), lm_eval_files=True, **options)  # type: ignore[arg-type]
    return start(config, out, RecordingReporter())


def lm_eval_samples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        path.name: sorted(map(json.loads, path.read_text().split("\n")[:-1]), key=lambda row: row["doc_id"])
        for path in sorted(folder.glob("samples_*.jsonl"))
    }


@pytest.mark.slow
def test_cut_texts_have_stocks_numbers(tmp_path: Path, suite: Suite) -> None:
    """Where the server tells its length, where the option does, and at several requests at once: bit for bit."""
    with toy_server(tmp_path, context=CONTEXT) as url, toy_server(tmp_path) as silent:
        told = run(tmp_path / "told", suite, url, concurrency=1)
        asked = run(tmp_path / "asked", suite, silent, context_tokens=CONTEXT, batch_size=3)
        whole = run(tmp_path / "whole", suite, silent)
        done = subprocess.run(
            [sys.executable, "-c", STOCK, url, str(suite.root), str(CONTEXT), str(tmp_path / "stock")],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (told.failure, asked.failure, whole.failure) == (None, None, None)
    stock = lm_eval_samples(tmp_path / "stock")
    assert stock.keys() == {f"samples_{name}.jsonl" for name in TYPES}
    for ours in ("told", "asked"):
        assert lm_eval_samples(tmp_path / ours / "lm_eval") == stock
    assert lm_eval_samples(tmp_path / "whole" / "lm_eval") != stock
    assert {task.name: task.item_failures for task in told.tasks} == {name: {} for name in TYPES}
    assert asked.identity["context_tokens"] == CONTEXT
    assert "context_tokens" not in told.identity


@pytest.mark.slow
def test_without_a_tokenizer_long_texts_are_the_servers_to_refuse(tmp_path: Path, suite: Suite) -> None:
    with toy_server(tmp_path, "no_tokenize", context=CONTEXT) as url:
        result = run(tmp_path / "out", suite, url, max_fault_share=1.0)
    assert result.failure is None
    counts = {task.name: task.item_failures for task in result.tasks}
    assert all(set(failures) == {"http_status"} for failures in counts.values())
    rows = [row for row in read_samples(tmp_path / "out") if row["failure"] == "http_status"]
    assert {row["score"] for row in rows} == {0.0}


def test_a_length_that_cannot_be_used_is_refused_in_words(tmp_path: Path, suite: Suite) -> None:
    with toy_server(tmp_path, "no_tokenize") as url:
        result = run(tmp_path / "out", suite, url, context_tokens=CONTEXT)
    assert result.failure is not None
    assert result.failure.reason == "infra_error"
    assert "POST /tokenize" in result.failure.message


@pytest.mark.slow
def test_a_prompt_that_is_too_long_to_answer_is_never_cut(tmp_path: Path) -> None:
    """lm-eval would drop its beginning, instructions and examples; here the server refuses, and the item fails."""
    suite = make_likelihood_suite(tmp_path / "suite", types=("generate_until",))
    long = [{"prompt": f"{words(60, 2)} Write {n}:", "answer": str(n)} for n in range(2)]
    with (suite.root / "data" / "generate_until.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in long)
    lock_suite(suite.root)
    with toy_server(tmp_path, context=CONTEXT) as url:
        result = run(tmp_path / "out", load_suite(suite.root), url)
    assert result.failure is None
    assert result.tasks[0].item_failures == {"http_status": 2}
    assert [row["failure"] for row in read_samples(tmp_path / "out")][-2:] == ["http_status"] * 2


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(3, 60))
def test_windows_are_those_of_lm_eval(length: int, context_tokens: int) -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # noqa: PLC0415 - takes seconds

    tokens = list(range(length))
    stock = map(make_disjoint_window, get_rolling_token_windows(tokens, -1, context_tokens - 2, 1))
    ours = rolling_windows(tokens, -1, context_tokens)
    assert ours == [Window((*context, *continuation), len(context)) for context, continuation in stock]
    assert all(len(window.tokens) < context_tokens for window in ours)
    assert [token for window in ours for token in window.tokens[window.context_tokens :]] == tokens


def test_a_pair_keeps_its_last_tokens_and_at_least_one_of_context() -> None:
    assert last_window([1, 2, 3, 4], [5, 6], 6) == Window((2, 3, 4, 5, 6), 3)
    assert last_window([1, 2], [5, 6], 100) == Window((1, 2, 5, 6), 2)
    assert last_window([1, 2], [5, 6], 4) == Window((2, 5, 6), 1)
    with pytest.raises(AnswerFault, match="does not fit"):
        last_window([1, 2], [5, 6], 3)


def test_no_text_that_may_be_too_long_is_taken_for_short() -> None:
    assert not may_be_too_long("abcd", 6)
    assert may_be_too_long("abcde", 6)
    assert may_be_too_long("日本", 6)
