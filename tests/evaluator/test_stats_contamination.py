"""Questions in training data: what is found, what is not, and that no hidden text is ever shown."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from eval_suites import make_suite, run_evaluator
from hypothesis import given
from hypothesis import strategies as st

from tiltyard_eval.stats.contamination import Finding, Item, Report, Rules, ScanError, reading, scan_files
from tiltyard_eval.stats.contamination.similar import SimilarIndex, shingles_of, short_runs_of
from tiltyard_eval.stats.contamination.words import Hashes, Runs, numbers_of, words_of

QUESTION = "A farmer sells twelve brown eggs on Monday and thirty on Tuesday. How many eggs does she sell on both days?"
OTHER = "Seven sailors share forty two coins and each of them buys a hat for three coins. How many coins are left?"
ITEMS = [Item("eggs", 0, QUESTION), Item("coins", 4, OTHER)]


def write(folder: Path, rows: Iterable[object]) -> Path:
    path = folder / "train.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def scan(folder: Path, *rows: object, rules: Rules | None = None, items: list[Item] | None = None) -> Report:
    return scan_files(items or ITEMS, [write(folder, rows)], rules)


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


def test_a_question_in_the_data_is_found_by_number_and_line(tmp_path: Path) -> None:
    report = scan(tmp_path, {"prompt": "Something else."}, {"prompt": QUESTION, "answer": "42"})
    assert (report.items, report.records, report.share, report.by_task()) == (2, 2, 0.5, {"eggs": 1})
    finding = only(report)
    assert (finding.task, finding.index, finding.contained, finding.overlap) == ("eggs", 0, True, 1.0)
    assert finding.jaccard == 1.0
    assert finding.places == ("train.jsonl:2",)


def test_clean_data_is_clean(tmp_path: Path) -> None:
    report = scan(tmp_path, {"text": "How many eggs does she sell on both days?"}, {"text": "twelve brown eggs"})
    assert report.findings == ()
    assert scan_files(ITEMS, []).records == 0


def test_case_spaces_and_forms_of_letters_do_not_matter(tmp_path: Path) -> None:
    wide = "".join(chr(ord(char) + 0xFEE0) if char.isascii() and char.isalnum() else char for char in QUESTION)
    for disguised in (QUESTION.upper(), QUESTION.replace(" ", "\n\t "), wide):
        assert only(scan(tmp_path, {"text": disguised})).contained


def test_a_question_within_a_long_text_or_over_several_fields_is_found(tmp_path: Path) -> None:
    filler = "the quick brown fox " * 5000
    assert only(scan(tmp_path, {"text": filler + QUESTION + filler})).contained
    first, second = QUESTION.split(". ")
    assert only(scan(tmp_path, {"messages": [{"content": first + "."}, {"content": second}]})).contained


def test_a_large_part_of_a_question_is_found_by_its_n_grams(tmp_path: Path) -> None:
    words = QUESTION.split()
    part = " ".join(["Once", *words[:-3], "then?"])
    finding = only(scan(tmp_path, {"text": part}))
    assert not finding.contained
    assert 0.7 <= finding.overlap < 1.0
    assert scan(tmp_path, {"text": part}, rules=Rules(overlap=0.95, jaccard=1.0)).findings == ()
    assert scan(tmp_path, {"text": " ".join(words[:10])}).findings == ()


def test_parts_in_different_records_are_no_finding(tmp_path: Path) -> None:
    words = QUESTION.split()
    pieces = [" ".join(words[start : start + 11]) for start in range(0, len(words), 4)]
    assert scan(tmp_path, *({"text": piece} for piece in pieces)).findings == ()
    assert only(scan(tmp_path, {"text": QUESTION})).contained


def test_a_changed_question_is_similar(tmp_path: Path) -> None:
    changed = QUESTION.replace("brown", "white")
    finding = only(scan(tmp_path, {"prompt": changed, "answer": "42"}, rules=Rules(overlap=1.0, jaccard=0.7)))
    assert not finding.contained
    assert 0.7 <= finding.jaccard < 1.0


def test_the_suites_manner_of_speaking_is_no_finding(tmp_path: Path) -> None:
    """Questions of one template share nearly all n-grams; only their own words tell them apart."""
    frame = "Please read the following list of words and count how many of them there are in it: {} ?"
    items = [Item("count", n, frame.format(f"w{n} x{n} y{n} z{n}")) for n in range(20)]
    training = [{"text": frame.format(f"w{n} x{n} y{n} z{n}")} for n in range(100, 150)]
    rules = Rules(jaccard=0.9)
    assert scan(tmp_path, *training, rules=rules, items=items).findings == ()
    assert only(scan(tmp_path, *training, {"text": items[3].text}, rules=rules, items=items)).index == 3


def test_short_questions_are_found_whole_only(tmp_path: Path) -> None:
    items = [Item("sums", 0, "What is 3 + 4?"), Item("sums", 1, "What is 3 - 4?"), Item("sums", 2, "Why?")]
    report = scan(tmp_path, {"text": "Q: What is 3+4? A: 7"}, items=items)
    assert [finding.index for finding in report.findings] == [0]


def test_every_record_counts_once_and_five_places_are_named(tmp_path: Path) -> None:
    finding = only(scan(tmp_path, *({"a": QUESTION, "b": QUESTION} for _ in range(8))))
    assert finding.records == 8
    assert finding.places == tuple(f"train.jsonl:{line}" for line in range(1, 6))


def test_broken_lines_hide_nothing(tmp_path: Path) -> None:
    report = scan(
        tmp_path, "{broken " + QUESTION, "[" * 100_000, "", json.dumps(OTHER), json.dumps([[1, None, {"x": 2.5}]])
    )
    assert [(finding.task, finding.places) for finding in report.findings] == [
        ("eggs", ("train.jsonl:1",)),
        ("coins", ("train.jsonl:4",)),
    ]
    assert (report.records, report.not_json) == (4, 2)
    path = tmp_path / "bytes.txt"
    path.write_bytes(b"\xff\xfe\n" + QUESTION.encode() + b"\xff\n")
    assert only(scan_files(ITEMS, [path])).places == ("bytes.txt:2",)


def test_a_line_that_is_too_long_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 1000)
    with pytest.raises(ScanError, match=r"train\.jsonl line 2 is larger than 1000 bytes"):
        scan(tmp_path, {"text": "short"}, {"text": "x" * 1000})


def test_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"{QUESTION if n % 7 == 0 else OTHER if n % 5 == 0 else 'nothing'} {n}"} for n in range(60)]
    whole = scan(tmp_path, *rows)
    monkeypatch.setattr("tiltyard_eval.stats.contamination.scan._BATCH_WORDS", 30)
    monkeypatch.setattr("tiltyard_eval.stats.contamination.similar._CHUNK_SHINGLES", 40)
    assert scan(tmp_path, *rows) == whole
    assert [finding.records for finding in whole.findings] == [9, 10]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"words": 1}, "at least two words"),
        ({"overlap": 0.0}, "overlap is a share"),
        ({"jaccard": 0.4}, "from 0.5 to 1"),
    ],
)
def test_rules_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ScanError, match=message):
        Rules(**wrong)  # type: ignore[arg-type]


def test_items_without_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no questions"):
        scan_files([], [])
    with pytest.raises(ScanError, match="item 3 of task blank has no word"):
        scan_files([Item("blank", 3, " \n")], [])


def hashes(words: list[str]) -> Hashes:
    return np.array(numbers_of(words), dtype=np.uint64)


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 6))
def test_runs_have_equal_hashes_just_when_their_words_are_equal(words: list[str], length: int) -> None:
    runs = Runs(hashes(words)).of_length(length)
    own = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    assert len(runs) == len(own)
    assert len(set(runs.tolist())) == len(set(own))
    assert all(number == Runs(hashes(list(run))).of_length(length)[0] for number, run in zip(runs, own, strict=True))


@given(st.text(max_size=60))
def test_words_are_stable(text: str) -> None:
    words = words_of(text)
    assert words_of(" ".join(words)) == words
    assert all(word.strip() for word in words)


def test_minhash_finds_nearly_all_that_is_alike_and_counts_exactly() -> None:
    rng = np.random.default_rng(0)
    texts = [[f"w{number}" for number in rng.integers(0, 5000, 60)] for _ in range(200)]
    index = SimilarIndex([hashes(text) for text in texts], least=0.7)
    changed = []
    for text in texts:
        words = list(text)
        words[30] = "changed"  # 3 of 58 shingles differ: Jaccard 55/61
        changed.append(hashes(words))
    shingles = [shingles_of(short_runs_of(Runs(numbers)), 0, len(numbers)) for numbers in changed]
    found = list(index.find(shingles))
    assert sum(one.text == one.item for one in found) >= 199
    assert all(one.text == one.item for one in found)
    assert {round(one.jaccard, 3) for one in found} <= {round(55 / 61, 3), round(54 / 61, 3), round(54 / 60, 3)}
    strangers = [shingles_of(short_runs_of(Runs(hashes([f"v{n}_{i}" for i in range(60)]))), 0, 60) for n in range(50)]
    assert list(index.find(strangers)) == []


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Twenty times the data: the peak of what Python and NumPy hold stays where it was."""
    import tracemalloc  # noqa: PLC0415

    def peak(rows: int) -> int:
        path = write(tmp_path, ({"text": f"row {n} " + "some words that fill a line " * 8} for n in range(rows)))
        tracemalloc.start()
        try:
            scan_files(ITEMS, [path])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(5_000), peak(25_000)
    assert large < 1.3 * small


def test_command_names_items_and_lines_but_no_hidden_text(tmp_path: Path) -> None:
    suite = make_suite(tmp_path / "suite", visibility="hidden")
    data = write(tmp_path, [{"prompt": item.prompt} for item in suite.tasks[1].items[:3]])
    found = run_evaluator("contamination", data, "--suite", suite.root)
    assert found.returncode == 0, found.stderr
    assert "3 of 24 items found (12.5%) in 3 records." in found.stdout
    assert "words 2: whole, Jaccard 1.00; 1 records: train.jsonl:3" in found.stdout
    document = run_evaluator("contamination", data, "--suite", suite.root, "--json")
    assert json.loads(document.stdout)["by_task"] == {"words": 3}
    refused = run_evaluator("contamination", data, "--suite", suite.root, "--show-open")
    assert refused.returncode == 2
    assert "--show-open needs an open suite" in refused.stderr
    for done in (found, document, refused):
        assert "capitals" not in done.stdout + done.stderr
    too_much = run_evaluator("contamination", data, "--suite", suite.root, "--max-share", "0.1")
    assert too_much.returncode == 1


def test_command_shows_open_questions_when_asked(tmp_path: Path) -> None:
    suite = make_suite(tmp_path / "suite")
    data = write(tmp_path, [{"prompt": suite.tasks[1].items[0].prompt}])
    shown = run_evaluator("contamination", data, "--suite", suite.root, "--show-open")
    assert "Write ab in capitals.\\nAnswer:" in shown.stdout
    document = run_evaluator("contamination", data, "--suite", suite.root, "--show-open", "--json")
    assert json.loads(document.stdout)["findings"][0]["text"] == "Write ab in capitals.\nAnswer:"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "No such file"),
        (["train.jsonl", "--words", "1"], "at least two words"),
        (["train.jsonl", "--max-share", "7"], "--max-share is a share"),
    ],
)
def test_command_refuses_wrong_input(tmp_path: Path, arguments: list[str], message: str) -> None:
    suite = make_suite(tmp_path / "suite")
    write(tmp_path, [])
    done = run_evaluator("contamination", tmp_path / arguments[0], *arguments[1:], "--suite", suite.root)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
