"""The twin gap: what it says of entries that know the words, and of those that know the skill."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_results import example_result

from tiltyard_eval.__main__ import main
from tiltyard_eval.files import write_json
from tiltyard_eval.twins import ItemKey, TwinError, TwinScores, twin_gap, twin_gap_of_folders

PAIRS = 60
LINKS: dict[ItemKey, ItemKey] = {("a", n): ("a", 2 * n) for n in range(PAIRS // 2)}
LINKS |= {("b", n): ("c", n) for n in range(PAIRS // 2)}
WEIGHTS = {"a": 1.0, "b": 3.0, "unpaired": 5.0}


def scores(rng: np.random.Generator, known: float, skill: float) -> TwinScores:
    """An entry that knows an open item with probability `known`, and else answers with its skill."""

    def draw(count: int, extra: float) -> list[float]:
        return [float(one) for one in rng.random(count) < skill + (1 - skill) * extra]

    return TwinScores({"a": draw(PAIRS, known), "c": draw(PAIRS, known)}, {"a": draw(PAIRS, 0), "b": draw(PAIRS, 0)})


def test_gap_is_the_weighted_difference_of_linked_items_alone() -> None:
    opened = {"a": [1.0, 0.0] * (PAIRS // 2), "c": [0.5] * PAIRS}
    hidden = {"a": [0.0] * PAIRS, "b": [0.25] * (PAIRS // 2) + [1.0] * (PAIRS // 2), "unpaired": [1.0]}
    found = twin_gap(TwinScores(opened, hidden), LINKS, WEIGHTS)
    assert found.gap.value == pytest.approx(0.25 * 1.0 + 0.75 * 0.25)
    assert found.open == pytest.approx(0.25 * 1.0 + 0.75 * 0.5)
    assert found.hidden == pytest.approx(0.75 * 0.25)
    assert (found.pairs, found.lost, found.gained) == (60, 60, 0)
    assert [(task.name, task.pairs, task.open, task.hidden) for task in found.tasks] == [
        ("a", 30, 1.0, 0.0),
        ("b", 30, 0.5, 0.25),
    ]
    assert found.gap.low < found.gap.value < found.gap.high
    assert found.flagged
    assert (found.excess, found.nearest) == (None, None)


def test_memorising_is_flagged_and_skill_is_not() -> None:
    rng = np.random.default_rng(1)
    memoriser, skilled = scores(rng, known=1.0, skill=0.4), scores(rng, known=0.0, skill=0.8)
    assert twin_gap(memoriser, LINKS, WEIGHTS).flagged
    assert not twin_gap(skilled, LINKS, WEIGHTS).flagged


def test_false_alarms_are_as_rare_as_the_level_says() -> None:
    rng = np.random.default_rng(20261124)
    rounds = 1000
    alarms = sum(twin_gap(scores(rng, known=0.0, skill=rng.random()), LINKS, WEIGHTS).flagged for _ in range(rounds))
    assert alarms <= 0.05 * rounds


def test_interval_covers_the_true_gap() -> None:
    rng = np.random.default_rng(20261125)
    covered = 0
    for _ in range(1000):
        known, skill = rng.random(2)
        gap = twin_gap(scores(rng, known, skill), LINKS, WEIGHTS).gap
        covered += gap.low <= known * (1 - skill) <= gap.high
    assert 930 <= covered <= 975


def test_what_the_change_of_words_costs_baselines_is_no_fault_of_an_entry() -> None:
    rng = np.random.default_rng(3)
    hard = {"a": [float(one) for one in rng.random(PAIRS) < 0.4], "b": [float(one) for one in rng.random(PAIRS) < 0.4]}
    opened = {
        "a": [float(one) for one in rng.random(PAIRS) < 0.9],
        "c": [float(one) for one in rng.random(PAIRS) < 0.9],
    }
    honest = TwinScores(opened, hard)
    memoriser = TwinScores({"a": [1.0] * PAIRS, "c": [1.0] * PAIRS}, {"a": [0.0] * PAIRS, "b": [0.0] * PAIRS})
    assert twin_gap(honest, LINKS, WEIGHTS).flagged
    against = twin_gap(honest, LINKS, WEIGHTS, baselines=[memoriser, honest])
    assert not against.flagged
    assert against.nearest == 0  # what a baseline that loses more shows speaks most for the entry
    same = twin_gap(honest, LINKS, WEIGHTS, baselines=[honest])
    assert same.excess is not None
    assert same.excess.value == 0.0
    assert twin_gap(memoriser, LINKS, WEIGHTS, baselines=[honest]).flagged


def test_two_twins_of_one_open_item_are_one_cluster() -> None:
    rng = np.random.default_rng(4)
    entry = scores(rng, known=0.5, skill=0.3)
    apart = {("a", n): ("a", n) for n in range(PAIRS)}
    shared = {("a", n): ("a", n // 4) for n in range(PAIRS)}
    repeated = TwinScores(entry.open, {"a": [entry.hidden["a"][n // 4] for n in range(PAIRS)]})
    single = TwinScores({"a": [entry.open["a"][n // 4] for n in range(PAIRS)]}, repeated.hidden)
    naive = twin_gap(single, apart, WEIGHTS).gap
    honest = twin_gap(repeated, shared, WEIGHTS).gap
    assert honest.value == naive.value
    assert honest.standard_error > 1.5 * naive.standard_error


@pytest.mark.parametrize(
    ("links", "weights", "message"),
    [
        ({}, WEIGHTS, "has no twins"),
        ({("a", 0): ("a", 0)}, WEIGHTS, "has no twins"),
        ({("a", 0): ("a", 0), ("a", 1): ("z", 0)}, WEIGHTS, "no score for item 0 of task 'z'"),
        ({("a", 0): ("a", 0), ("a", 99): ("a", 0)}, WEIGHTS, "no score for item 99 of task 'a'"),
        ({("a", 0): ("a", 0), ("b", 1): ("a", 0)}, {"a": 1.0}, "the weight of task 'b'"),
    ],
)
def test_what_cannot_be_paired_is_refused(
    links: dict[ItemKey, ItemKey], weights: dict[str, float], message: str
) -> None:
    with pytest.raises(TwinError, match=message):
        twin_gap(scores(np.random.default_rng(0), 0.5, 0.5), links, weights)


def write_run(folder: Path, visibility: str, right: int, *, suite: str = "1" * 64, twins: bool = False) -> Path:
    """A run of 40 items of which the first `right` are right; those of a hidden suite are twins one by one."""
    folder.mkdir()
    document = json.loads(json.dumps(example_result().to_json()))
    document["suite"] |= {"visibility": visibility, "sha256": f"sha256:{suite}"}
    task = {**document["tasks"][0], "name": "sums", "items": 40, "format_failures": 0, "item_failures": {}}
    document["tasks"] = [task]
    write_json(folder / "result.json", document)
    rows: list[dict[str, Any]] = [
        {"task": "sums", "index": n, "score": float(n < right), "cluster": f"c{n}", "twin": None} for n in range(40)
    ]
    if twins:
        rows = [{**row, "twin": {"task": "sums", "index": row["index"]}} for row in rows]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_command_reads_what_runs_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = write_run(tmp_path / "open", "open", 40)
    hidden = write_run(tmp_path / "hidden", "hidden", 10, suite="2" * 64, twins=True)
    base = [
        write_run(tmp_path / "bo", "open", 12),
        write_run(tmp_path / "bh", "hidden", 10, suite="2" * 64, twins=True),
    ]
    assert main(["twins", str(opened), str(hidden), "--baseline", *map(str, base)]) == 0
    text = capsys.readouterr().out
    assert "Twin gap +75.0 points" in text
    assert "40 pairs, 30 lost in other words and 0 gained" in text
    assert "+70.0 points more" in text
    assert "Flagged: it knows the open questions' words" in text
    assert main(["twins", str(base[0]), str(base[1]), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["gap"]["value"] == pytest.approx(0.05)
    assert document["flagged"] is False
    assert document["tasks"] == [{"name": "sums", "pairs": 40, "open": 0.3, "hidden": 0.25}]


def test_wrong_folders_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = write_run(tmp_path / "open", "open", 40)
    hidden = write_run(tmp_path / "hidden", "hidden", 10, suite="2" * 64, twins=True)
    plain = write_run(tmp_path / "plain", "hidden", 10, suite="2" * 64)
    other = write_run(tmp_path / "other", "open", 40, suite="3" * 64)
    text = (other / "samples.jsonl").read_text()
    (other / "samples.jsonl").write_text(text.replace('"c3"', '"c33"'))
    with pytest.raises(TwinError, match="other is not a run on the open suite whose twins hidden has answered"):
        twin_gap_of_folders(other, hidden)
    with pytest.raises(TwinError, match="has no twins"):
        twin_gap_of_folders(opened, plain)
    with pytest.raises(TwinError, match="other is not a run on the suite of open"):
        twin_gap_of_folders(opened, hidden, baselines=[(other, hidden)])
    for wrong, message in (
        (text.replace('"score": 1.0', '"score": NaN', 1), "is not what the evaluator writes"),
        (text.replace('"index": 0', '"index": -1', 1), "is not what the evaluator writes"),
        (text.replace('"index": 0', '"index": 40', 1), "is not what the evaluator writes"),
        (text.replace('"twin": null', '"twin": 7', 1), "is not what the evaluator writes"),
        ("".join(text.splitlines(keepends=True)[1:]), "does not hold every item"),
    ):
        (opened / "samples.jsonl").write_text(wrong)
        assert main(["twins", str(opened), str(hidden)]) == 3
        assert message in capsys.readouterr().err
