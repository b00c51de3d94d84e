"""Comparing two results: the pairing, the figures, and the page."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eval_results import example_result

from tiltyard_eval.__main__ import main
from tiltyard_eval.comparison import ComparisonError, compare_folders
from tiltyard_eval.comparison_page import render_comparison
from tiltyard_eval.files import write_json, write_jsonl
from tiltyard_eval.results import Score, SuiteRef, load_result

HOSTILE = '</pre></details><script>alert("x")</script><img src=x onerror=alert(1)>&<!--'


def write_run(
    folder: Path,
    scores: list[float],
    *,
    answers: list[str] | None = None,
    clusters: list[str] | None = None,
    shuffled: bool = False,
    **changes: Any,
) -> Path:
    """A folder as `run --out` leaves it, of one task with these item scores."""
    result = example_result()
    mean = sum(scores) / len(scores)
    task = replace(result.tasks[0], items=len(scores), score=mean, format_failures=0, item_failures={})
    result = replace(result, tasks=(task,), score=Score(mean, 0.0, 1.0), **changes)
    texts = answers or [f" {score}" for score in scores]
    rows = [
        {
            **{"task": "sums", "index": i, "prompt": f"{i}+1=", "answer": text, "expected": str(i + 1)},
            **{"extracted": text.strip(), "score": score, "failure": None, "latency_s": 0.1},
            **({"cluster": clusters[i]} if clusters else {}),
        }
        for i, (score, text) in enumerate(zip(scores, texts, strict=True))
    ]
    folder.mkdir()
    write_json(folder / "result.json", result.to_json())
    write_jsonl(folder / "samples.jsonl", rows[::-1] if shuffled else rows)
    return folder


def test_items_are_paired_whatever_their_order(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", [1, 0, 0, 1])
    b = write_run(tmp_path / "b", [1, 1, 1, 0], shuffled=True)
    found = compare_folders(a, b)
    assert (found.summary.items, found.summary.better, found.summary.worse, found.different_answers) == (4, 2, 1, 3)
    assert [(pair.index, pair.change) for pair in found.flipped] == [(3, -1), (1, 1), (2, 1)]
    assert found.summary.difference.value == pytest.approx(0.25)
    assert found.summary.difference.low < 0.25 < found.summary.difference.high


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    scores = [1.0, 0.0] * 50
    a, b = write_run(tmp_path / "a", scores), write_run(tmp_path / "b", scores)
    found = compare_folders(a, b)
    assert found.summary.difference.value == 0.0
    assert found.summary.difference.low <= 0.0 <= found.summary.difference.high
    assert (found.flipped, found.unlike) == ((), ())


def test_pairing_sees_what_two_intervals_do_not(tmp_path: Path) -> None:
    # 40 hard items that both miss, 40 easy ones that both answer, and 12 that only B answers.
    a = write_run(tmp_path / "a", [0.0] * 40 + [1.0] * 40 + [0.0] * 12)
    b = write_run(tmp_path / "b", [0.0] * 40 + [1.0] * 40 + [1.0] * 12)
    found = compare_folders(a, b)
    assert found.summary.difference.low > 0
    assert found.summary.difference.p_value < 0.01


def test_items_of_one_skeleton_are_one_observation(tmp_path: Path) -> None:
    """Ten skeletons of eight items each, of which B gets three right as a whole: not 24 independent gains."""
    before, after = [0.0] * 80, [1.0] * 24 + [0.0] * 56
    skeletons = [f"s{index // 8}" for index in range(80)]
    apart = compare_folders(write_run(tmp_path / "a", before), write_run(tmp_path / "b", after)).summary.difference
    together = compare_folders(
        write_run(tmp_path / "c", before, clusters=skeletons), write_run(tmp_path / "d", after, clusters=skeletons)
    ).summary
    assert together.difference.value == pytest.approx(apart.value)
    assert together.difference.standard_error > 2 * apart.standard_error
    assert together.tasks[0].difference.low < 0 < apart.low
    lone = [f"s{index}" for index in range(80)]
    same = compare_folders(
        write_run(tmp_path / "e", before, clusters=lone), write_run(tmp_path / "f", after, clusters=lone)
    ).summary.difference
    assert same == apart


def test_swapping_turns_the_sign(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", [1, 0, 0, 0, 0]), write_run(tmp_path / "b", [0, 1, 1, 1, 0])
    there, back = compare_folders(a, b).summary.difference, compare_folders(b, a).summary.difference
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_other_settings_are_named(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", [1, 0])
    b = write_run(tmp_path / "b", [1, 0], identity={"seed": 1})
    assert compare_folders(a, b).unlike == ("order of the questions",)


OTHER_SUITE = SuiteRef("other", "Other", "2", "open", "sha256:11")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": OTHER_SUITE}, "A answered tiny version 1 and B other version 2"),
        ({"status": "failed", "score": None}, "B has no score"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    a, b = write_run(tmp_path / "a", [1, 0]), write_run(tmp_path / "b", [1, 0])
    document = json.loads((b / "result.json").read_text())
    result = load_result(json.dumps(document).encode())
    if changes.get("status") == "failed":
        document |= {"status": "failed", "score": None, "tasks": [], "failure": {"reason": "crashed", "message": "x"}}
    else:
        document = replace(result, **changes).to_json()
    write_json(b / "result.json", document)
    with pytest.raises(ComparisonError, match=message):
        compare_folders(a, b)


def test_missing_samples_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_run(tmp_path / "a", [1, 0]), write_run(tmp_path / "b", [1, 0])
    (b / "samples.jsonl").unlink()
    assert main(["compare", str(a), str(b)]) == 3
    assert "B has 0 samples of 2" in capsys.readouterr().err


def test_other_questions_under_the_same_numbers_are_refused(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", [1, 0]), write_run(tmp_path / "b", [1, 0])
    path = b / "samples.jsonl"
    path.write_text(path.read_text().replace("1+1=", "1+2="))
    with pytest.raises(ComparisonError, match="item 1 of sums is not the same question"):
        compare_folders(a, b)


def test_hostile_answers_stay_text(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", [1, 0])
    b = write_run(tmp_path / "b", [0, 1], answers=[HOSTILE, HOSTILE])
    page = render_comparison(compare_folders(a, b), "a", HOSTILE)
    assert not {"script", "img"} & set(re.findall(r"<(\w+)", page))
    assert "script-src 'none'" in page
    assert "&lt;/pre&gt;" in page


def test_hidden_items_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    hidden = SuiteRef("tiny", "Tiny suite", "1", "hidden", "sha256:00")
    a = write_run(tmp_path / "a", [1, 0], suite=hidden)
    b = write_run(tmp_path / "b", [0, 1], suite=hidden, answers=["nobody knows", "nobody knows"])
    found = compare_folders(a, b)
    assert "nobody knows" not in render_comparison(found, "a", "b")
    assert "nobody knows" in render_comparison(found, "a", "b", with_hidden=True)


def test_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "before", [0.0] * 30)
    b = write_run(tmp_path / "after", [1.0] * 20 + [0.0] * 10)
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "page.html")]) == 0
    text = capsys.readouterr().out
    assert "after is better than before" in text
    assert "20 got better and 0 worse" in text
    assert "<h1>after against before</h1>" in (tmp_path / "page.html").read_text()
    assert main(["compare", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["better"] == 20


def without_prompt(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "prompt"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without_prompt, "line 1: prompt is not a text"),
        (lambda row: row | {"answer": None}, "line 1: answer is not a text"),
        (lambda row: row | {"task": "other"}, "has 0 samples of task 'sums', not 2"),
        (lambda row: row | {"index": float("inf")}, "line 1: index is not a count"),
        (lambda row: row | {"score": 2.0}, "line 1: score is not a number from 0 to 1"),
    ],
)
def test_malformed_samples_are_one_line_of_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    folders = [write_run(tmp_path / name, [1, 0]) for name in ("a", "b")]
    for folder in folders:
        path = folder / "samples.jsonl"
        rows = [edit(json.loads(line)) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["compare", *map(str, folders)]) == 3
    assert message in capsys.readouterr().err


def test_nothing_of_a_result_controls_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = SuiteRef("\x1b[31mother", "Other", "2", "open", "sha256:11")
    a, b = write_run(tmp_path / "a", [1, 0]), write_run(tmp_path / "b", [1, 0], suite=other)
    assert main(["compare", str(a), str(b)]) == 3
    for path in (a / "result.json", a / "samples.jsonl"):
        path.write_text(path.read_text().replace('"sums"', '"\\u001b[31msums"'))
    assert main(["compare", str(a), str(a)]) == 0
    printed = capsys.readouterr()
    assert "other version 2" in printed.err
    assert "[31msums" in printed.out
    assert "\x1b" not in printed.err + printed.out


def change_result(folder: Path, **changes: Any) -> None:
    """Forge the headline or a task's figures, and leave the samples as they are."""
    document = json.loads((folder / "result.json").read_text())
    task = {name: value for name, value in changes.items() if name in document["tasks"][0]}
    document["tasks"][0] |= task
    document |= {name: value for name, value in changes.items() if name not in task}
    write_json(folder / "result.json", document)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": 0.9}, "task 'sums' says 90.0%, but its samples give 50.0%"),
        ({"item_failures": {"timeout": 1}}, "task 'sums' counts other failures than its samples"),
    ],
)
def test_a_result_that_its_samples_do_not_give_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    a, b = write_run(tmp_path / "a", [1, 0]), write_run(tmp_path / "b", [1, 0])
    change_result(b, **changes)
    with pytest.raises(ComparisonError, match=r"B's result\.json and samples\.jsonl disagree") as caught:
        compare_folders(a, b)
    assert message in str(caught.value)


def test_a_headline_that_its_tasks_do_not_give_is_refused(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", [1, 0]), write_run(tmp_path / "b", [1, 0])
    document = json.loads((b / "result.json").read_text())
    document["score"] = {"value": 0.99, "low": 0.98, "high": 1.0}
    write_json(b / "result.json", document)
    with pytest.raises(ComparisonError, match=r"the score says 99\.0%, but its tasks give 50\.0%"):
        compare_folders(a, b)


def test_other_weights_under_one_suites_hash_are_refused(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", [1, 0]), write_run(tmp_path / "b", [1, 0])
    change_result(b, weight=2.0)
    with pytest.raises(ComparisonError, match="other tasks, weights or numbers of items"):
        compare_folders(a, b)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "line 1: not JSON"),
        (b"[" * 100_000, "line 1: not JSON"),
        (b"[1]\n", "line 1: not a JSON object"),
        (b"{}\n", "line 1: task is not a text"),
    ],
)
def test_corrupt_samples_are_one_line_of_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    a, b = write_run(tmp_path / "a", [1, 0]), write_run(tmp_path / "b", [1, 0])
    (b / "samples.jsonl").write_bytes(content)
    assert main(["compare", str(a), str(b)]) == 3
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_item_that_appears_twice_is_refused(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", [1, 0]), write_run(tmp_path / "b", [1, 0])
    path = b / "samples.jsonl"
    first = path.read_text().splitlines()[0]
    path.write_text(f"{first}\n{first}\n")
    with pytest.raises(ComparisonError, match="B has two samples of item 0 of 'sums'"):
        compare_folders(a, b)


def test_a_folder_above_the_result_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("monday", "tuesday"):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name / "open", [1, 0])
    assert (
        main(["compare", str(tmp_path / "monday"), str(tmp_path / "tuesday"), "--out", str(tmp_path / "p.html")]) == 0
    )
    assert "tuesday/open against monday/open" in (tmp_path / "p.html").read_text()
    assert main(["compare", str(tmp_path), str(tmp_path / "monday")]) == 3
    assert "holds no result.json" in capsys.readouterr().err
    write_run(tmp_path / "monday" / "other", [1, 0])
    assert main(["compare", str(tmp_path / "monday"), str(tmp_path / "tuesday")]) == 3
    assert "holds several results" in capsys.readouterr().err
