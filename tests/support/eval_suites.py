"""A small locked suite and runs against it, for tests of the evaluator."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tiltyard_eval.suite import Suite, lock_suite
from tiltyard_eval.suite.task_yaml import task_yaml

ITEMS = 12


def make_suite(folder: Path, *, visibility: str = "open", items: int = ITEMS) -> Suite:
    """Two tasks with weights 1 and 3; the second one's answers are words."""
    (folder / "tasks").mkdir(parents=True)
    (folder / "data").mkdir()
    tasks = [
        {"name": "sums", "title": "Sums", "family": "arithmetic", "weight": 1},
        {"name": "words", "title": "Words", "family": "strings", "weight": 3},
    ]
    meta = {"name": "tiny", "title": "Tiny suite", "version": "1", "visibility": visibility, "tasks": tasks}
    (folder / "suite.yaml").write_text(yaml.safe_dump(meta))
    rows = {
        "sums": [(f"What is {n} + {n}?\nAnswer:", str(2 * n)) for n in range(items)],
        "words": [(f"Write {'ab' * (n + 1)} in capitals.\nAnswer:", "AB" * (n + 1)) for n in range(items)],
    }
    for name, pairs in rows.items():
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(task_yaml(name, name, 32)))
        lines = [{"prompt": prompt, "answer": answer, "task": name, "level": 1} for prompt, answer in pairs]
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lock_suite(folder)


def gold_answers(suite: Suite) -> dict[str, str]:
    """The text that a perfect server gives to each prompt."""
    return {item.prompt: f" {item.answer}" for task in suite.tasks for item in task.items}


def evaluator_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tiltyard_eval", *(str(argument) for argument in arguments)]


def run_evaluator(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the evaluator's command line to its end."""
    return subprocess.run(
        evaluator_command(*arguments), capture_output=True, text=True, timeout=120, check=False, cwd="/"
    )


def read_samples(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]


@dataclass
class RecordingReporter:
    """Keeps what it is told."""

    stages: list[str] = field(default_factory=list)
    counts: list[tuple[int, int]] = field(default_factory=list)

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def progress(self, done: int, total: int) -> None:
        self.counts.append((done, total))

    def close(self) -> None:
        self.stages.append("closed")
