"""Answers that try to pass for right without being right, on the whole evaluator, beside honest ones."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from eval_servers import running_server
from eval_suites import RecordingReporter, make_suite, read_samples
from likelihood_server import toy_server
from likelihood_suites import CHOICES, make_likelihood_suite

from tiltyard_eval.config import RunConfig
from tiltyard_eval.runner import start
from tiltyard_eval.suite import Suite, lock_suite

pytestmark = pytest.mark.slow

# Of the sums, by the item's number: what is sent in place of the gold answer " 2n".
CHEATS = {
    "every candidate at once": " 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22",
    "every candidate, in words": " 2 or 4, or perhaps 22",
    "two answers": " 4 4",
    "digits of another script": " \uff16",
    "a digit that only looks like one": " \U0001d7ea",
    "an invisible mark behind it": " 10\u200b",
    "a mark that turns the text round": " \u202e21",
    "the question again": " What is 7 + 7?\nAnswer: 14",
    "a sum of the same value": " 8+8",
    "another way to write it": " 18.0",
    "rubbish before the stop, the answer after it": " ~?~\n20",
    "more spaces than are read": " " * 5000 + "22",
}
# Of the words: what an honest server may send. White space around the answer is no other answer, here as in lm-eval.
HONEST = {
    "as asked": " {}",
    "padded": "   {}   ",
    "padded with other white space": "\u00a0\t{}\u3000",
    "with the stop string and more": " {}\nQuestion: what else",
    "without the space": "{}",
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return make_suite(tmp_path_factory.mktemp("cheats") / "suite", items=len(CHEATS))


def run(folder: Path, suite: Suite, answers: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The samples of each task, in order."""
    with running_server(folder, answers=answers) as url:
        config = RunConfig(url, "openai", str(suite.root), start_timeout_s=10.0)
        result = start(config, folder / "out", RecordingReporter())
    assert result.failure is None
    rows = read_samples(folder / "out")
    return {task.name: [row for row in rows if row["task"] == task.name] for task in suite.tasks}


def test_only_the_answer_is_right(tmp_path: Path, suite: Suite) -> None:
    sums, words = suite.tasks
    answers = dict(zip((item.prompt for item in sums.items), CHEATS.values(), strict=True))
    forms = list(HONEST.values())
    answers |= {item.prompt: forms[n % len(forms)].format(item.answer) for n, item in enumerate(words.items)}
    samples = run(tmp_path, suite, answers)
    paid = [name for name, row in zip(CHEATS, samples["sums"], strict=True) if row["score"]]
    assert paid == []
    assert all(row["score"] == 1.0 for row in samples["words"])
    unreadable = [name for name, row in zip(CHEATS, samples["sums"], strict=True) if row["failure"] == "format"]
    assert unreadable == ["more spaces than are read"]


def test_a_server_that_exchanges_its_answers_is_paid_for_none(tmp_path: Path, suite: Suite) -> None:
    """Each prompt gets the right answer to the next one."""
    answers = {}
    for task in suite.tasks:
        following = [*task.items[1:], task.items[0]]
        answers |= {one.prompt: f" {other.answer}" for one, other in zip(task.items, following, strict=True)}
    samples = run(tmp_path, suite, answers)
    assert {row["score"] for rows in samples.values() for row in rows} == {0.0}


def test_a_suite_drawn_again_under_the_same_name_is_asked_and_scored_anew(tmp_path: Path) -> None:
    """lm-eval's caches know a task by its name, so that they would give the old questions, or the old answers."""
    for number, first in enumerate(("What is", "How much is")):
        folder = tmp_path / str(number)
        folder.mkdir()
        drawn = make_suite(folder / "suite")
        data = drawn.root / "data" / "sums.jsonl"
        data.write_text(data.read_text().replace("What is", first))
        drawn = lock_suite(drawn.root)
        samples = run(folder, drawn, {item.prompt: f" {item.answer}" for item in drawn.tasks[0].items})
        assert [row["prompt"] for row in samples["sums"]] == [item.prompt for item in drawn.tasks[0].items]
        assert {row["score"] for row in samples["sums"]} == {1.0}
        assert samples["sums"][0]["prompt"].startswith(first)


# What stock lm-eval makes of servers with a fault in every log-probability, on a task whose gold answer stands first.
STOCK = """
import json, sys
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from tiltyard_eval.suite import load_suite
from pathlib import Path

urls, folder = json.loads(sys.argv[1]), sys.argv[2]
found = {}
for name, url in urls.items():
    config = load_suite(Path(folder)).task_configs()["multiple_choice"]
    results = simple_evaluate(
        model="local-completions",
        model_args={"model": "toy", "base_url": url + "/v1/completions", "max_length": 1_000_000, "max_retries": 1,
                    "tokenizer_backend": "remote", "tokenized_requests": False},
        tasks=[config],
        task_manager=TaskManager(include_path=None, include_defaults=False),
        bootstrap_iters=0,
        torch_random_seed=None,
    )
    found[name] = results["results"]["multiple_choice"]["acc,none"]
print(json.dumps(found))
"""
PAID_BY_STOCK = ("nan", "zero", "constant", "generated_only")


def test_faults_that_stock_lm_eval_pays_in_full_are_worth_chance_or_nothing_here(tmp_path: Path) -> None:
    suite = make_likelihood_suite(tmp_path / "suite")
    ours, urls = {}, {}
    with ExitStack() as servers:
        for name in ("good", "positive", *PAID_BY_STOCK):
            urls[name] = servers.enter_context(toy_server(tmp_path, name))
            config = RunConfig(urls[name], "openai", str(suite.root), start_timeout_s=10.0)
            score = start(config, tmp_path / name, RecordingReporter()).score
            ours[name] = None if score is None else score.value
        stock = subprocess.run(
            [sys.executable, "-c", STOCK, json.dumps(urls), str(suite.root)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert stock.returncode == 0, stock.stderr[-3000:]
    paid = json.loads(stock.stdout.splitlines()[-1])
    assert paid["good"] == ours["good"]
    assert 0 < paid["good"] < 1
    assert paid["positive"] is not None  # believed, though no probability is above 1
    assert {name: paid[name] for name in PAID_BY_STOCK} == dict.fromkeys(PAID_BY_STOCK, 1.0)
    assert [ours["zero"], ours["constant"]] == pytest.approx([1 / CHOICES] * 2)
    assert {ours[name] for name in ("nan", "generated_only", "positive")} == {None}
