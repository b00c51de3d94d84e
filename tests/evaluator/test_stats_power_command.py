"""`power`: what a suite can find, planned from its sizes and measured on results."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eval_results import example_result
from eval_suites import make_suite, run_evaluator

from tiltyard_eval.build import build_suite, load_recipe
from tiltyard_eval.files import write_json, write_jsonl
from tiltyard_eval.stats.power import TaskSize, planned_difference
from tiltyard_eval.suite import Suite


def write_run(folder: Path, suite: Suite, scores: np.ndarray) -> Path:
    """A folder as `run --out` leaves it, with these scores of all items, in the suite's order."""
    result = example_result()
    assert result.suite is not None
    folder.mkdir()
    write_json(folder / "result.json", replace(result, suite=replace(result.suite, sha256=suite.sha256)).to_json())
    keys = [(task.name, index) for task in suite.tasks for index in range(len(task.items))]
    rows = [
        {"task": task, "index": index, "score": float(score)} for (task, index), score in zip(keys, scores, strict=True)
    ]
    write_jsonl(folder / "samples.jsonl", rows[::-1])
    return folder


def test_planned_and_measured(tmp_path: Path) -> None:
    suite = make_suite(tmp_path / "suite", visibility="hidden", items=100)
    rng = np.random.default_rng(0)
    runs = [write_run(tmp_path / f"run{n}", suite, (rng.random(200) < 0.5).astype(float)) for n in range(3)]
    arguments = [argument for run in runs for argument in ("--result", run)]
    done = run_evaluator("power", "--suite", suite.root, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    sizes = [TaskSize(100, 1.0), TaskSize(100, 3.0)]
    assert document["planned"][0] == {"discordance": 0.1, "difference": planned_difference(sizes, discordance=0.1)}
    # Coin throwers differ on half of the items, so that what is measured is what the worst case plans for.
    assert document["measured"]["pairs"] == 3
    assert document["measured"]["median"] == pytest.approx(document["planned"][-1]["difference"], rel=0.1)
    text = run_evaluator("power", "--suite", suite.root, *arguments)
    assert f"cannot separate entries closer than {100 * document['measured']['median']:.1f} points" in text.stdout


def test_clusters_and_other_levels(tmp_path: Path) -> None:
    suite = make_suite(tmp_path / "suite", items=50)
    plain = json.loads(run_evaluator("power", "--suite", suite.root, "--json").stdout)
    strict = json.loads(run_evaluator("power", "--suite", suite.root, "--level", "0.01", "--json").stdout)
    clustered = json.loads(
        run_evaluator("power", "--suite", suite.root, "--cluster-by", "level", "--icc", "0.1", "--json").stdout
    )
    differences = [document["planned"][1]["difference"] for document in (plain, strict, clustered)]
    assert differences == sorted(differences)
    assert (plain["clusters"], clustered["clusters"], plain["measured"]) == (100, 2, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--power", "1.5"], "probabilities within 0..1"),
        (["--cluster-by", "skeleton"], "not every item has the field 'skeleton'"),
        (["--result", "one"], "at least two entries"),
        (["--result", "one", "--result", "short"], "short does not have a score for every item"),
        (["--result", "one", "--result", "broken"], "broken: a sample lacks its task, index or score"),
        (["--result", "one", "--result", "other"], "other is not a scored run on this suite"),
        (["--result", "missing"], "No such file"),
    ],
)
def test_wrong_input_is_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    suite = make_suite(tmp_path / "suite")
    write_run(tmp_path / "one", suite, np.ones(24))
    write_run(tmp_path / "other", replace(suite, sha256="sha256:" + "0" * 64), np.ones(24))
    for name, content in (("short", '{"task": "sums", "index": 0, "score": 1}'), ("broken", '{"task": "sums"}')):
        (write_run(tmp_path / name, suite, np.ones(24)) / "samples.jsonl").write_text(content + "\n")
    folders = [tmp_path / one if (tmp_path / one).is_dir() or one == "missing" else one for one in arguments]
    done = run_evaluator("power", "--suite", suite.root, *folders)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["power", "contamination"])
def test_every_option_is_documented(command: str) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "statistics.md").read_text(encoding="utf-8")
    options = set(re.findall(r"--[a-z-]+", run_evaluator(command, "--help").stdout)) - {"--help"}
    assert options
    assert {option for option in options if f"`{option}`" not in page} == set()


def test_items_of_one_skeleton_are_a_cluster_by_default(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "{name: days, title: Days, version: '1', visibility: open, description: Seven days and two numbers of days,"
        " items: 60, levels: [1], tasks: [{family: weekday}]}"
    )
    suite = build_suite(load_recipe(tmp_path / "recipe.yaml"), b"sixteen bytes or more", tmp_path / "suite")
    document = json.loads(run_evaluator("power", "--suite", suite.root, "--json").stdout)
    assert document["items"] == 60
    assert document["clusters"] == len({item.cluster for item in suite.tasks[0].items}) <= 14
    assert document["planned"][0]["difference"] > planned_difference([TaskSize(60, 1.0)], discordance=0.1)
