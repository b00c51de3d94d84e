"""Every family through the whole evaluator: whoever gives the gold answers gets full marks, and nobody else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from eval_servers import running_server

from tiltyard_eval.build import build_suite, load_recipe
from tiltyard_eval.generators import REGISTRY

RECIPE = """
name: everything
title: Everything
version: "1"
visibility: open
description: Every family.
items: 5
levels: [2, 3, 4, 5]
tasks:
"""


@pytest.mark.slow
def test_gold_answers_score_one_in_every_family_and_wrong_ones_nothing(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE + "".join(f"  - {{family: {name}}}\n" for name in REGISTRY))
    suite = build_suite(load_recipe(recipe), b"sixteen bytes or more", tmp_path / "suite")
    wrong = suite.tasks[0].name
    answers = {
        item.prompt: f" {item.answer}{'0' if task.name == wrong else ''}" for task in suite.tasks for item in task.items
    }
    out = tmp_path / "out"
    with running_server(tmp_path, answers=answers) as url:
        command = [sys.executable, "-m", "tiltyard_eval", "run", "--url", url, "--adapter", "openai"]
        command += ["--suite", str(suite.root), "--out", str(out), "--progress", "plain"]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert finished.returncode == 0, finished.stderr
    result = json.loads((out / "result.json").read_text())
    scores = {task["name"]: task["score"] for task in result["tasks"]}
    assert scores == {name: 0.0 if name == wrong else 1.0 for name in REGISTRY}
    assert result["suite"]["sha256"] == suite.sha256
