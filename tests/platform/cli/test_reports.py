"""`tiltyard report` and `tiltyard compare`."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from eval_results import example_result

from tiltyard.cli.app import run
from tiltyard_eval.files import write_json, write_jsonl
from tiltyard_eval.results import Score


def write_result(folder: Path, scores: list[float]) -> Path:
    """What an evaluation leaves of one task whose items have these scores."""
    result = example_result()
    mean = sum(scores) / len(scores)
    task = replace(result.tasks[0], items=len(scores), score=mean, format_failures=0, item_failures={})
    folder.mkdir(parents=True)
    write_json(folder / "result.json", replace(result, tasks=(task,), score=Score(mean, 0.0, 1.0)).to_json())
    rows = [
        {"task": "sums", "index": i, "prompt": f"{i}+1=", "answer": "?", "expected": "?", "extracted": "?"}
        | {"score": score, "failure": None, "latency_s": 0.1}
        for i, score in enumerate(scores)
    ]
    write_jsonl(folder / "samples.jsonl", rows)
    return folder


def test_report_writes_a_page_beside_the_suites_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(tmp_path / "results" / "open", [1, 0])
    assert run(["report", str(tmp_path / "results"), "--json"]) == 0
    path = Path(json.loads(capsys.readouterr().out)["report"])
    assert path == tmp_path / "results" / "open.html"
    assert "disagree" not in path.read_text().split("<main>")[1].split("<script")[0]


def test_report_goes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(tmp_path / "open", [1, 0])
    assert run(["report", str(tmp_path / "open"), "--out", str(tmp_path / "page.html")]) == 0
    assert "page.html" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_compare_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_result(tmp_path / "before", [0.0] * 30), write_result(tmp_path / "after", [1.0] * 20 + [0.0] * 10)
    page = tmp_path / "page.html"
    assert run(["compare", str(a), str(b), "--names", "old", "new", "--out", str(page)]) == 0
    text = capsys.readouterr().out
    assert "new is better than old" in text
    assert "Of 30 items 20 got better and 0 worse" in text
    assert "<h1>new against old</h1>" in page.read_text()
    assert run(["compare", str(a), str(b), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["better"], document["report"]) == (20, None)
    assert document["score_b"] == pytest.approx(2 / 3)


def test_a_forged_score_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_result(tmp_path / "a", [1, 0]), write_result(tmp_path / "b", [1, 0])
    file = b / "result.json"
    file.write_text(re.sub(r'"score": 0\.5', '"score": 1.0', file.read_text()))
    assert run(["compare", str(a), str(b)]) == 2
    assert "result.json and samples.jsonl disagree" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["report", "none"], ["compare", "none", "none"]])
def test_a_folder_without_result_is_one_clear_error(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    assert "none is no folder: name the one that an evaluation wrote." in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_result(tmp_path / "open", [1, 0])
    assert run(["report", str(folder), "--out", str(tmp_path / "no" / "page.html")]) == 2
    assert "No such file or directory. Check the path" in capsys.readouterr().err
