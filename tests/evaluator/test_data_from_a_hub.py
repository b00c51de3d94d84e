"""A trusted suite whose data lie on a hub: scored as stock lm-eval scores it, and only where network was allowed."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from eval_suites import evaluator_command
from hub_server import COMMIT, running_hub
from likelihood_server import toy_server

from tiltyard_eval.results import load_result
from tiltyard_eval.suite import lock_suite

pytestmark = pytest.mark.slow

STOCK = """
import sys
from pathlib import Path
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from tiltyard_eval.lm_eval_files import write_lm_eval_files

url, out = sys.argv[1:]
results = simple_evaluate(
    model="local-completions",
    model_args={"model": "toy", "base_url": url + "/v1/completions", "tokenizer_backend": "remote",
                "tokenized_requests": False, "max_length": 100000, "max_retries": 1},
    tasks=["hub_texts", "hub_choices"],
    task_manager=TaskManager(include_path="tasks", include_defaults=False),
    bootstrap_iters=0,
    torch_random_seed=None,
)
write_lm_eval_files(Path(out), results)
"""
ROWS = [
    {"question": f"How many is {n} and {n}?", "gold": n % 4, "options": [str(2 * n + m) for m in (0, 1, 2, 3)]}
    for n in range(12)
]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


REPOSITORIES = {
    "someone/texts": {
        "README.md": b"---\nlicense: mit\n---\nQuestions.\n",
        "test.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    },
    "someone/choices": {
        "data/test-00000-of-00001.parquet": parquet(ROWS),
        "data/train-00000-of-00001.parquet": parquet(ROWS[::-1]),
    },
}
COMMON = {"test_split": "test", "doc_to_text": "Q: {{question}}\nA:", "num_fewshot": 0}
TASKS = [
    {
        **COMMON,
        "task": "hub_texts",
        "dataset_path": "someone/texts",
        "dataset_kwargs": {"revision": COMMIT},
        "output_type": "generate_until",
        "doc_to_target": "{{options[gold]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    },
    {
        **COMMON,
        "task": "hub_choices",
        "dataset_path": "someone/choices",
        "fewshot_split": "train",
        "num_fewshot": 2,
        "output_type": "multiple_choice",
        "doc_to_choice": "options",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "suite"
    (folder / "tasks").mkdir(parents=True)
    for task in TASKS:
        (folder / "tasks" / f"{task['task']}.yaml").write_text(yaml.safe_dump(task))
    meta = {"name": "hub", "title": "Hub", "version": "1", "visibility": "open", "format": "lm-eval"}
    meta |= {"network": True, "trusts_server": True}
    meta["tasks"] = [{"name": task["task"], "title": str(task["task"]), "family": "hub"} for task in TASKS]
    (folder / "suite.yaml").write_text(yaml.safe_dump(meta))
    return lock_suite(folder, trusted=True).root


def run(command: list[str], hub: str, home: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    offline = {"HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"}
    environment = {name: value for name, value in os.environ.items() if name not in offline}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def lm_eval_samples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        path.name: sorted(map(json.loads, path.read_text().split("\n")[:-1]), key=lambda row: row["doc_id"])
        for path in sorted(folder.glob("samples_*.jsonl"))
    }


def test_json_and_parquet_from_a_hub_score_as_in_stock(tmp_path: Path, suite: Path) -> None:
    out = tmp_path / "out"
    with running_hub(REPOSITORIES) as (hub, log), toy_server(tmp_path) as url:
        command = evaluator_command("run", "--url", url, "--suite", suite, "--out", out, "--trust-suite")
        ours = run([*command, "--allow-network", "--lm-eval-files"], hub, tmp_path / "ours", suite)
        assert ours.returncode == 0, ours.stdout + ours.stderr[-3000:]
        assert f"GET /datasets/someone/texts/resolve/{COMMIT}/test.jsonl" in log
        stock = run([sys.executable, "-c", STOCK, url, str(tmp_path / "stock")], hub, tmp_path / "theirs", suite)
        assert stock.returncode == 0, stock.stderr[-3000:]
    expected = lm_eval_samples(tmp_path / "stock")
    assert {name: len(rows) for name, rows in expected.items()} == {
        "samples_hub_choices.jsonl": 12,
        "samples_hub_texts.jsonl": 12,
    }
    assert lm_eval_samples(out / "lm_eval") == expected
    assert 0 < max(task.score for task in load_result(out / "result.json").tasks) < 1


@pytest.mark.parametrize("options", [["--trust-suite"], ["--allow-network"], []])
def test_nothing_leaves_the_machine_unless_all_is_allowed(tmp_path: Path, suite: Path, options: list[str]) -> None:
    with running_hub(REPOSITORIES) as (hub, log), toy_server(tmp_path) as url:
        command = evaluator_command("run", "--url", url, "--suite", suite, "--out", tmp_path / "out", *options)
        done = run(command, hub, tmp_path / "home", suite)
    assert done.returncode == 3
    failure = load_result(tmp_path / "out" / "result.json").failure
    assert failure is not None
    assert ("--allow-network" if options == ["--trust-suite"] else "trust") in failure.message
    assert log == []
