"""Scores equal those of stock lm-eval's `local-completions` on the same deterministic server and tasks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from eval_servers import running_server
from eval_suites import gold_answers, make_suite, read_samples, run_evaluator

from tiltyard_eval.results import load_result

pytestmark = pytest.mark.slow

# Runs in a process of its own: lm-eval changes logging and the environment of the one it runs in.
STOCK = """
import json, sys
from pathlib import Path
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from tiltyard_eval.suite import load_suite

url, folder, out = sys.argv[1:]
configs = load_suite(Path(folder)).task_configs()
results = simple_evaluate(
    model="local-completions",
    model_args={"model": "table", "base_url": url + "/v1/completions", "tokenizer_backend": None,
                "tokenized_requests": False, "num_concurrent": 1, "max_retries": 1},
    tasks=list(configs.values()),
    task_manager=TaskManager(include_path=None, include_defaults=False),
    bootstrap_iters=0,
)
samples = {name: sorted(results["samples"][name], key=lambda sample: sample["doc_id"]) for name in configs}
scores = {name: [sample["exact_match"] for sample in samples[name]] for name in configs}
means = {name: next(v for k, v in results["results"][name].items() if k.startswith("exact_match,")) for name in configs}
Path(out).write_text(json.dumps({"scores": scores, "means": means}))
"""


def test_item_scores_and_means_equal_stock_lm_eval(tmp_path: Path) -> None:
    suite = make_suite(tmp_path / "suite")
    answers = gold_answers(suite)
    for number, prompt in enumerate(sorted(answers)):  # right, wrong, padded, prefixed, doubled
        gold = answers[prompt]
        answers[prompt] = [gold, " 0", f"  {gold}  ", f" so{gold}", f"{gold}{gold}"][number % 5]
    out = tmp_path / "out"
    with running_server(tmp_path, answers=answers) as url:
        assert run_evaluator("run", "--url", url, "--suite", suite.root, "--out", out).returncode == 0
        stock = subprocess.run(
            [sys.executable, "-c", STOCK, url, str(suite.root), str(tmp_path / "stock.json")],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert stock.returncode == 0, stock.stderr
    expected = json.loads((tmp_path / "stock.json").read_text())
    ours = {task.name: [row["score"] for row in read_samples(out) if row["task"] == task.name] for task in suite.tasks}
    assert ours == expected["scores"]
    assert 0 < sum(ours["words"]) < len(ours["words"])
    means = {task.name: task.score for task in load_result(out / "result.json").tasks}
    assert means == pytest.approx(expected["means"])
