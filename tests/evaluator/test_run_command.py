"""`run` and `resume` as processes: result files, exit statuses, kills and continuation."""

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from eval_servers import running_server
from eval_suites import RecordingReporter, evaluator_command, gold_answers, make_suite, read_samples, run_evaluator

from tiltyard_eval import runner
from tiltyard_eval.config import RunConfig
from tiltyard_eval.results import load_result
from tiltyard_eval.suite import Suite, lock_suite

pytestmark = pytest.mark.slow


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return make_suite(tmp_path / "suite")


def without_timing(out: Path) -> dict[str, Any]:
    document = asdict(load_result(out / "result.json"))
    document.pop("timing")
    return document


def test_gold_answers_score_one(tmp_path: Path, suite: Suite) -> None:
    out = tmp_path / "out"
    with running_server(tmp_path, answers=gold_answers(suite)) as url:
        done = run_evaluator("run", "--url", url, "--suite", suite.root, "--out", out, "--progress", "json")
    assert done.returncode == 0, done.stderr
    result = load_result(out / "result.json")
    assert result.score is not None
    assert (result.score.value, result.score.high) == (1.0, 1.0)
    assert 0.7 < result.score.low < 1.0  # 24 right answers do not prove that none would be wrong
    assert [task.items for task in result.tasks] == [12, 12]
    assert result.identity["suite_sha256"] == suite.sha256
    rows = read_samples(out)
    assert len(rows) == 24
    first = next(row for row in rows if (row["task"], row["index"]) == ("sums", 3))
    assert set(first) == {
        *("task", "index", "prompt", "answer", "expected", "score", "failure", "latency_s", "extracted", "tied"),
        *("cluster", "twin"),
    }
    assert (first["prompt"], first["answer"], first["extracted"], first["expected"], first["score"]) == (
        *("What is 3 + 3?\nAnswer:", " 6", "6", "6", 1.0),
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["stage"] for event in events if event["event"] == "stage"] == [
        *("waiting", "probing", "asking", "scoring")
    ]
    assert events[-2] == {"event": "progress", "done": 24, "total": 24}


def test_weights_and_kinds_of_failure(tmp_path: Path, suite: Suite) -> None:
    """Words (weight 3) are all right; of the sums (weight 1) one is refused, one empty, one wrong."""
    prompts = [item.prompt for item in suite.tasks[0].items]
    answers = {**gold_answers(suite), prompts[0]: "REFUSE", prompts[1]: "", prompts[2]: " 5"}
    out = tmp_path / "out"
    with running_server(tmp_path, answers=answers, behaviour="refuse") as url:
        assert run_evaluator("run", "--url", url, "--suite", suite.root, "--out", out).returncode == 0
    result = load_result(out / "result.json")
    sums, words = result.tasks
    assert sums.score == pytest.approx(9 / 12)
    assert sums.low < sums.score < sums.high
    assert (sums.format_failures, dict(sums.item_failures)) == (1, {"http_status": 1})
    assert words.score == 1.0
    assert result.score is not None
    assert result.score.value == pytest.approx((9 / 12 + 3) / 4)
    failures = [row["failure"] for row in read_samples(out) if row["task"] == "sums"][:3]
    assert failures == ["http_status", "format", None]


@pytest.mark.parametrize("behaviour", ["empty_text", "rubbish_text", "long_text"])
def test_useless_texts_score_nothing(tmp_path: Path, suite: Suite, behaviour: str) -> None:
    out = tmp_path / "out"
    with running_server(tmp_path, answers=gold_answers(suite), behaviour=behaviour) as url:
        assert run_evaluator("run", "--url", url, "--suite", suite.root, "--out", out).returncode == 0
    result = load_result(out / "result.json")
    assert result.score is not None
    assert result.score.value == 0.0
    empty = sum(task.format_failures for task in result.tasks)
    assert empty == (24 if behaviour == "empty_text" else 0)


def test_submission_that_crashes_gets_a_result_and_status_2(tmp_path: Path, suite: Suite) -> None:
    out = tmp_path / "out"
    with running_server(tmp_path, answers=gold_answers(suite), behaviour="crash@3") as url:
        done = run_evaluator("run", "--url", url, "--suite", suite.root, "--out", out)
    assert done.returncode == 2
    assert "failed: crashed" in done.stdout
    result = load_result(out / "result.json")
    assert result.failure is not None
    assert result.failure.reason == "crashed"
    assert not (out / "samples.jsonl").exists()


def test_changed_suite_is_our_fault(tmp_path: Path, suite: Suite) -> None:
    with (suite.root / "data" / "sums.jsonl").open("a") as file:
        file.write('{"prompt": "1+1=", "answer": "2", "task": "sums", "level": 1}\n')
    out = tmp_path / "out"
    done = run_evaluator("run", "--url", "http://127.0.0.1:9", "--suite", suite.root, "--out", out)
    assert done.returncode == 3
    failure = load_result(out / "result.json").failure
    assert failure is not None
    assert failure.reason == "infra_error"
    assert "data/sums.jsonl" in failure.message


def test_wrong_command_line_is_not_the_submissions_fault(tmp_path: Path) -> None:
    done = run_evaluator("run", "--url", "ftp://x", "--suite", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "http://127.0.0.1:8000" in done.stderr


def test_second_run_into_the_same_folder_is_refused_and_leaves_it_alone(tmp_path: Path, suite: Suite) -> None:
    out = tmp_path / "out"
    with running_server(tmp_path, answers=gold_answers(suite)) as url:
        arguments = ("run", "--url", url, "--suite", suite.root, "--out", out)
        assert run_evaluator(*arguments).returncode == 0
        before = (out / "result.json").read_bytes()
        again = run_evaluator(*arguments)
    assert again.returncode == 3
    assert "resume" in again.stderr
    assert (out / "result.json").read_bytes() == before


def start_and_wait_for_batches(url: str, suite: Suite, out: Path, count: int) -> subprocess.Popen[bytes]:
    """Start a slow run and return once its journal holds `count` finished batches."""
    command = evaluator_command(
        "run", "--url", url, "--suite", suite.root, "--out", out, "--batch-size", 4, "--concurrency", 1
    )
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    journal = out / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b'"type": "batch"') < count:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def asked_prompts(log: Path) -> list[str]:
    """All prompts of the log after the probe's, as often as they were asked."""
    bodies = [json.loads(line) for line in log.read_text().splitlines()][2:]
    prompts = [body["prompt"] for body in bodies]
    return [prompt for entry in prompts for prompt in (entry if isinstance(entry, list) else [entry])]


def test_resume_after_kill_9_repeats_nothing_and_gives_the_same_result(tmp_path: Path, suite: Suite) -> None:
    answers = {**gold_answers(suite), suite.tasks[0].items[0].prompt: " wrong"}
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log.jsonl"
    with running_server(tmp_path, answers=answers) as url:
        run = run_evaluator(
            "run", "--url", url, "--suite", suite.root, "--out", whole, "--batch-size", 4, "--concurrency", 1
        )
        assert run.returncode == 0
    with running_server(tmp_path, answers=answers, delay_s=0.3, log=log) as url:
        process = start_and_wait_for_batches(url, suite, killed, 2)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    asked_before = asked_prompts(log)
    finished = (killed / "journal.jsonl").read_bytes().count(b'"type": "batch"')
    with (killed / "journal.jsonl").open("ab") as file:
        file.write(b'{"type": "batch", "index": 5, "ans')  # what a kill in the middle of a write leaves
    log.write_text("{}\n{}\n")
    with running_server(tmp_path, answers=answers, log=log) as url:
        assert run_evaluator("resume", "--out", killed, "--url", url).returncode == 0
    asked_after = asked_prompts(log)
    assert len(asked_after) == 24 - 4 * finished
    assert not set(asked_after) & set(asked_before[: 4 * finished])
    assert without_timing(killed) == without_timing(whole)


def test_sigterm_stops_quickly_and_resume_continues(tmp_path: Path, suite: Suite) -> None:
    out = tmp_path / "out"
    with running_server(tmp_path, answers=gold_answers(suite), delay_s=0.4) as url:
        process = start_and_wait_for_batches(url, suite, out, 1)
        stopped_at = time.monotonic()
        process.terminate()
        assert process.wait(timeout=10) == 3
        assert time.monotonic() - stopped_at < 3
        failure = load_result(out / "result.json").failure
        assert failure is not None
        assert failure.reason == "cancelled"
        assert run_evaluator("resume", "--out", out).returncode == 0
    assert load_result(out / "result.json").status == "scored"


def test_finished_run_resumes_without_a_server(tmp_path: Path, suite: Suite) -> None:
    out = tmp_path / "out"
    with running_server(tmp_path, answers=gold_answers(suite)) as url:
        assert run_evaluator("run", "--url", url, "--suite", suite.root, "--out", out).returncode == 0
    before = without_timing(out)
    (out / "result.json").unlink()
    assert run_evaluator("resume", "--out", out).returncode == 0
    assert without_timing(out) == before


def test_repro_hash_is_the_same_twice_and_names_what_matters(tmp_path: Path, suite: Suite) -> None:
    def run(name: str, *extra: object) -> str:
        with running_server(tmp_path, answers=gold_answers(suite)) as url:
            arguments = ("run", "--url", url, "--suite", suite.root, "--out", tmp_path / name, *extra)
            assert run_evaluator(*arguments).returncode == 0
        return load_result(tmp_path / name / "result.json").repro_hash

    first = run("first", "--image-digest", "sha256:aa")
    assert run("second", "--image-digest", "sha256:aa", "--deadline", 60, "--request-timeout", 20) == first
    others = [
        run("seed", "--image-digest", "sha256:aa", "--seed", 1),
        run("image", "--image-digest", "sha256:bb"),
        run("mode", "--image-digest", "sha256:aa", "--concurrency", 1),
        run("adapter", "--image-digest", "sha256:aa", "--adapter", "native"),
    ]
    assert len({first, *others}) == 5


def test_text_that_keeps_a_regular_expression_busy_ends_with_a_verdict(
    tmp_path: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a pattern is refused in a stranger's suite; in a trusted one the limit on scoring holds."""
    path = suite.root / "tasks" / "sums.yaml"
    config = yaml.safe_load(path.read_text())
    config["filter_list"][0]["filter"][0]["regex_pattern"] = "(a+)+$"
    path.write_text(yaml.safe_dump(config))
    lock_suite(suite.root, trusted=True)
    monkeypatch.setattr(runner, "SCORING_LIMIT_S", 1.0)
    answers = dict.fromkeys(gold_answers(suite), "a" * 60 + "b")
    with running_server(tmp_path, answers=answers) as url:
        config = RunConfig(url=url, adapter="openai", suite=str(suite.root), trust_suite=True)
        result = runner.start(config, tmp_path / "out", RecordingReporter())
    assert result.failure is not None
    assert result.failure.reason == "time_limit"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_evaluator_needs_neither_torch_nor_django_nor_a_writable_home(tmp_path: Path, suite: Suite) -> None:
    """Runs with both packages made impossible to import, as in the evaluator's image, and a home that is not there."""
    blocked = tmp_path / "blocked"
    for package in ("torch", "django", "transformers"):
        (blocked / package).mkdir(parents=True)
        (blocked / package / "__init__.py").write_text(f"raise ImportError('no {package} here')\n")
    out = tmp_path / "out"
    with running_server(tmp_path, answers=gold_answers(suite)) as url:
        done = subprocess.run(
            evaluator_command("run", "--url", url, "--suite", suite.root, "--out", out),
            env={**os.environ, "PYTHONPATH": str(blocked), "HOME": "/nonexistent/home"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert not Path("/nonexistent").exists()
