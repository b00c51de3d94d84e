"""Samples, metrics and scores equal those of stock lm-eval on the same deterministic server and tasks."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eval_servers import running_server
from eval_suites import gold_answers, make_suite, read_samples, run_evaluator
from likelihood_server import toy_server
from lm_eval_grid import ENTRIES, make_grid

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


# What stock lm-eval makes of the grid; `remote` is its way to a tokenizer without a checkpoint.
STOCK_GRID = """
import json, sys
from pathlib import Path
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from tiltyard_eval.lm_eval_files import write_lm_eval_files

job = json.loads(sys.argv[1])
results = simple_evaluate(
    model=job["model"],
    model_args={"model": "toy", "base_url": job["url"], "max_length": 1_000_000, "num_concurrent": job["concurrent"],
                "tokenizer_backend": job["tokenizer"], "tokenized_requests": False, "max_retries": 1},
    tasks=job["tasks"],
    task_manager=TaskManager(include_path="tasks", include_defaults=False),
    bootstrap_iters=0,
    torch_random_seed=None,
    apply_chat_template=job["chat"] is not None,
    **(job["chat"] or {}),
)
write_lm_eval_files(Path(job["out"]), results)
"""

# Many runs of the evaluator in one process, which imports lm-eval once.
OURS = """
import json, sys
from pathlib import Path
from tiltyard_eval.config import RunConfig
from tiltyard_eval.progress import PlainReporter
from tiltyard_eval.runner import start

for job in json.loads(sys.argv[1]):
    config = RunConfig(trust_suite=True, lm_eval_files=True, **job["config"])
    result = start(config, Path(job["out"]), PlainReporter())
    assert result.status == "scored", result.failure
"""

RUNS = [
    ("native", 1, 1),
    ("native", 4, 2),
    ("native", 32, 3),
    ("openai", 1, 4),
    ("openai", 4, 5),
    ("openai", 32, 6),
    ("neurips2023", 4, 7),
    ("neurips2023", 32, 8),
]
# As a suite declares a conversation, and as lm-eval is asked for the same one.
CHATS: dict[str, dict[str, Any]] = {"turns": {"multiturn": True}, "message": {"system": "Be brief: ünïcode, too.  "}}
STOCK_CHATS = {
    "turns": {"fewshot_as_multiturn": True},
    "message": {"fewshot_as_multiturn": False, "system_instruction": CHATS["message"]["system"]},
}
CHAT_RUNS = [("turns", 1), ("turns", 4), ("turns", 32), ("message", 4)]


@dataclass(frozen=True)
class Grid:
    """Where the files of stock lm-eval and of our runs lie."""

    folder: Path

    def document(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name / "results.json").read_text())  # type: ignore[no-any-return]

    def samples(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """By task, in the order of documents and filters."""
        return {
            path.name: sorted(
                map(json.loads, path.read_text().split("\n")[:-1]), key=lambda row: (row["doc_id"], row["filter"])
            )
            for path in sorted((self.folder / name).glob("samples_*.jsonl"))
        }


def run_python(script: str, argument: object, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, json.dumps(argument)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")},
        cwd=folder / "suite",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    folder = tmp_path_factory.mktemp("grid")
    suite = make_grid(folder / "suite")
    chats = {name: make_grid(folder / name, chat) for name, chat in CHATS.items()}
    stock = {"model": "local-completions", "tokenizer": "remote", "chat": None, "concurrent": 1}
    stock["tasks"] = [task.name for task in suite.tasks]
    stock_chat = {**stock, "model": "local-chat-completions", "tokenizer": None, "concurrent": 4}
    stock_chat["tasks"] = [task.name for task in chats["turns"].tasks]
    with toy_server(folder) as url, toy_server(folder, bos=True) as url_with_start:
        runs = [
            {
                "config": {"url": url, "adapter": adapter, "suite": str(suite.root), "concurrency": n, "seed": seed},
                "out": str(folder / f"{adapter}-{n}"),
            }
            for adapter, n, seed in RUNS
        ]
        runs.append({"config": {**runs[4]["config"], "url": url_with_start}, "out": str(folder / "openai-bos")})
        for name, n in CHAT_RUNS:
            config = {**runs[0]["config"], "adapter": "openai", "suite": str(chats[name].root), "concurrency": n}
            runs.append({"config": {**config, "seed": n}, "out": str(folder / f"{name}-{n}")})
        run_python(OURS, runs, folder)
        run_python(STOCK_GRID, {**stock, "url": f"{url}/v1/completions", "out": str(folder / "stock")}, folder)
        chat_url = f"{url}/v1/chat/completions"
        for name, chat in STOCK_CHATS.items():
            run_python(
                STOCK_GRID, {**stock_chat, "chat": chat, "url": chat_url, "out": str(folder / f"stock-{name}")}, folder
            )
    return Grid(folder)


COMPARED = ("results", "groups", "group_subtasks", "versions", "n-shot", "higher_is_better", "n-samples")


@pytest.mark.parametrize("run", [*(f"{adapter}-{n}" for adapter, n, _ in RUNS), "openai-bos"])
def test_every_sample_and_metric_of_the_grid_equals_stock(grid: Grid, run: str) -> None:
    """Bit for bit, whatever the adapter, the concurrency and the order; also where the server adds a start token."""
    expected, ours = grid.samples("stock"), grid.samples(f"{run}/lm_eval")
    assert ours.keys() == expected.keys()
    for task, rows in expected.items():
        assert ours[task] == rows, task
    stock, document = grid.document("stock"), grid.document(f"{run}/lm_eval")
    for part in COMPARED:
        assert document.get(part) == stock.get(part), part
    assert {sample["filter"] for sample in ours["samples_gen_filters.jsonl"]} == {"strict", "flexible"}


@pytest.mark.parametrize(("name", "concurrency"), CHAT_RUNS)
def test_conversations_equal_stock(grid: Grid, name: str, concurrency: int) -> None:
    """Few-shot examples as turns, and in one message after a system message; with a prefix of the answer, and votes."""
    ours, stock = f"{name}-{concurrency}/lm_eval", f"stock-{name}"
    assert grid.samples(ours) == grid.samples(stock)
    assert grid.document(ours)["results"] == grid.document(stock)["results"]
    assert {"samples_gen_prefixed.jsonl", "samples_gen_at_k.jsonl"} <= grid.samples(ours).keys()


def test_task_scores_are_stocks_metrics(grid: Grid) -> None:
    """The grid decides nothing by luck: some items are right and some wrong, no choices tie, no answer is faulty."""
    stock = grid.document("stock")
    result = load_result(grid.folder / "native-4" / "result.json")
    assert [task.name for task in result.tasks] == [*ENTRIES, "mc_included"]
    for task in result.tasks:
        if task.name == "tagged":  # a tag is several tasks under one name, of which lm-eval makes no figure
            assert task.metrics == {}
            continue
        figures = stock.get("groups", {}).get(task.name) or stock["results"][task.name]
        named = {key: value for key, value in figures.items() if "," in key and "_stderr," not in key}
        assert task.metrics == named
        assert (task.ties, task.item_failures) == (0, {})
        assert 0 < task.score < 1
    scores = {task.name: task.score for task in result.tasks}
    assert scores["mc_empty"] == pytest.approx(stock["results"]["mc_empty"]["acc,none"])
    assert scores["gen_filters"] == pytest.approx(stock["results"]["gen_filters"]["exact_match,strict"])
    votes, prefixed = (stock["results"][name] for name in ("gen_at_k", "gen_prefixed"))
    assert scores["tagged"] == pytest.approx((votes["exact_match,maj@3"] + prefixed["exact_match,none"]) / 2)
    assert scores["choices"] == pytest.approx(stock["groups"]["choices"]["acc,none"])
