"""Reading a suite's folder: what is accepted, what is refused and with which words, and what the lock notices."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tiltyard_eval.__main__ import main
from tiltyard_eval.suite import SuiteError, load_suite, lock_suite, verify_suite
from tiltyard_eval.suite.task_yaml import task_yaml

OPEN = Path(__file__).parents[2] / "competitions" / "demo" / "suites" / "open"
SECRET_ANSWER = "xyzzy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small locked suite of two tasks, three questions each."""
    root = tmp_path / "suite"
    for sub in ("tasks", "data"):
        (root / sub).mkdir(parents=True)
    tasks = []
    for name in ("one", "two"):
        tasks.append({"name": name, "title": name.title(), "family": "words", "weight": 1})
        (root / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(task_yaml(name, name, 16)))
        rows = [{"prompt": f"Q: {name} {i}\nA:", "answer": f"{SECRET_ANSWER} {i}"} for i in range(3)]
        (root / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    meta = {"name": "small", "title": "Small", "version": "1", "visibility": "hidden", "tasks": tasks}
    (root / "suite.yaml").write_text(yaml.safe_dump(meta))
    lock_suite(root)
    return root


def _edit_yaml(path: Path, change: Callable[[dict], object]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


def test_a_suite_is_read_whole(folder: Path) -> None:
    suite = load_suite(folder)
    assert (suite.name, suite.visibility, suite.item_count) == ("small", "hidden", 6)
    assert [task.name for task in suite.tasks] == ["one", "two"]
    assert suite.tasks[0].items[2].answer == "xyzzy 2"
    assert "Q: two 1\nA:" in suite.prompts()
    config = suite.task_configs()["one"]
    assert config["dataset_kwargs"]["data_files"]["test"] == str(folder / "data" / "one.jsonl")
    assert suite.tasks[0].config["dataset_kwargs"]["data_files"]["test"] == "data/one.jsonl"


def test_the_lock_ignores_form_and_notices_content(folder: Path) -> None:
    before = verify_suite(folder).sha256
    text = (folder / "suite.yaml").read_text()
    (folder / "suite.yaml").write_text("# a comment\n" + text.replace("\n", "\r\n"), newline="")
    data = (folder / "data" / "one.jsonl").read_text()
    (folder / "data" / "one.jsonl").write_text(data.replace(", ", " ,  "))
    assert verify_suite(folder).sha256 == before
    (folder / "data" / "one.jsonl").write_text(data.replace("xyzzy 1", "xyzzy 9"))
    with pytest.raises(SuiteError, match=r"differs from its lock in \['data/one.jsonl'\]"):
        verify_suite(folder)
    assert lock_suite(folder).sha256 != before
    assert verify_suite(folder).sha256 != before


@pytest.mark.parametrize("part", ["weight", "title", "family"])
def test_the_lock_covers_the_declaration(folder: Path, part: str) -> None:
    _edit_yaml(folder / "suite.yaml", lambda data: data["tasks"][1].update({part: 2 if part == "weight" else "other"}))
    with pytest.raises(SuiteError, match=r"differs from its lock in \['suite.yaml'\]"):
        verify_suite(folder)


def test_the_lock_file_itself_is_checked(folder: Path) -> None:
    lock = folder / "suite.lock"
    content = json.loads(lock.read_text())
    lock.write_text(json.dumps({**content, "sha256": "sha256:" + "0" * 64}))
    with pytest.raises(SuiteError, match=r"differs from its lock in \['suite.lock'\]"):
        verify_suite(folder)
    lock.write_text("[")
    with pytest.raises(SuiteError, match="not JSON; make it with"):
        verify_suite(folder)
    lock.unlink()
    with pytest.raises(SuiteError, match=r"suite\.lock: cannot be read"):
        verify_suite(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(task="three"), "task must be 'one'"),
        (lambda c: c.update(dataset_path="somebody/dataset"), "dataset_path must be json"),
        (lambda c: c.update(output_type="greedy_until"), "output_type must be one of generate_until"),
        (lambda c: c.update(process_results="x"), "unknown keys"),
        (lambda c: c.update(unsafe_code=True), "unknown keys"),
        (lambda c: c.update(num_fewshot=2), "num_fewshot must be 0"),
        (lambda c: c.update(repeats=100), "repeats must be 1"),
        (lambda c: c.update(doc_to_text="{{ ''.__class__.__mro__ }}"), "doc_to_text may only hold"),
        (lambda c: c.update(doc_to_text="{% for i in range(9**9) %}x{% endfor %}"), "doc_to_text may only hold"),
        (lambda c: c.update(doc_to_target=["a"]), "doc_to_target must be a template"),
        (lambda c: c["generation_kwargs"].update(until=[]), "until must be"),
        (lambda c: c["generation_kwargs"].update(max_gen_toks=10**9), "max_gen_toks must be"),
        (lambda c: c["generation_kwargs"].update(temperature=1.0), "temperature must be 0"),
        (lambda c: c["generation_kwargs"].update(do_sample=True), "do_sample must be false"),
        (lambda c: c["filter_list"][0]["filter"][0].update(regex_pattern="(a+)+$"), "regex_pattern must be"),
        (lambda c: c["filter_list"][0]["filter"][0].update(function="custom"), "functions:"),
        (lambda c: c["filter_list"][0].update(filter=[{"function": "lowercase"}]), "must end with take_first"),
        (lambda c: c.update(metric_list=[{"metric": "bleu"}]), "must be exact_match"),
        (lambda c: c.update(metric_list=[]), "exactly one metric"),
        (lambda c: c["dataset_kwargs"].update(data_files={"test": "/etc/passwd"}), "within the suite"),
        (lambda c: c["dataset_kwargs"].update(data_files={"test": "data/../../x.jsonl"}), "within the suite"),
        (lambda c: c["dataset_kwargs"].update(data_files={"test": "https://example.org/x.jsonl"}), "within the suite"),
        (lambda c: c["dataset_kwargs"].update(trust_remote_code=True), "unknown keys"),
        (lambda c: c["dataset_kwargs"]["data_files"].update(test="data/two.jsonl"), "used twice"),
    ],
)
def test_a_task_file_must_have_the_fixed_shape(folder: Path, change: Callable[[dict], object], message: str) -> None:
    _edit_yaml(folder / "tasks" / "one.yaml", change)
    with pytest.raises(SuiteError) as caught:
        load_suite(folder, require_lock=False)
    assert message in str(caught.value)


def test_a_trusted_suite_may_use_templates_and_patterns(folder: Path) -> None:
    def change(config: dict) -> None:
        config["doc_to_text"] = "{{ prompt | trim }}"
        config["filter_list"][0]["filter"][0]["regex_pattern"] = r"(\d+)"

    _edit_yaml(folder / "tasks" / "one.yaml", change)
    assert lock_suite(folder, trusted=True).name == "small"
    with pytest.raises(SuiteError, match="may only hold"):
        verify_suite(folder)


def test_code_in_yaml_is_never_loaded(folder: Path) -> None:
    path = folder / "tasks" / "one.yaml"
    path.write_text(path.read_text() + "process_docs: !function os.system\n")
    for trusted in (False, True):
        with pytest.raises(SuiteError, match="tag !function is not allowed"):
            load_suite(folder, trusted=trusted, require_lock=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 4: not a JSON object"),
        ("[1]", "must be a JSON object"),
        ('{"prompt": "p", "answer": NaN}', "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"prompt": "p"}', "line 4: answer: must be text"),
        ('{"prompt": "p", "answer": 7}', "answer: must be text"),
        ('{"prompt": "", "answer": "a"}', "prompt: must be text"),
        ('{"prompt": "p", "answer": " a"}', "without spaces at its ends"),
        ('{"prompt": "p", "answer": "a\\nb"}', "one line"),
        ('{"prompt": "p\\ud800", "answer": "a"}', "lone surrogate"),
        ('{"prompt": "p", "answer": "2001-12-31"}', "must not begin with a date"),
        ('{"prompt": "p", "answer": "a", "image": "x"}', "no keys but"),
        ('{"prompt": "p", "answer": "a", "level": "1"}', "level must be an integer"),
        ('{"prompt": "Q: one 0\\nA:", "answer": "a"}', "line 4: the prompt stands twice"),
        ('{"prompt": "Q: two 0\\nA:", "answer": "a"}', "in another task"),
        ('{"prompt": "' + "p" * 20_001 + '", "answer": "a"}', "prompt: must be text of 1 to 20000"),
    ],
)
def test_a_wrong_question_is_named_by_its_line_and_not_quoted(folder: Path, line: str, message: str) -> None:
    with (folder / "data" / "one.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(SuiteError) as caught:
        load_suite(folder, require_lock=False)
    assert message in str(caught.value)
    assert SECRET_ANSWER not in str(caught.value)
    assert "Q: " not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(name="../up"), "is no name"),
        (lambda m: m.update(name=""), "is no name"),
        (lambda m: m.update(version=1), r"version (in quotes)"),
        (lambda m: m.update(visibility="secret"), "visibility must be open or hidden"),
        (lambda m: m.update(commitment="sha256:12"), "64 hexadecimal digits"),
        (lambda m: m.update(colour="red"), "unknown keys"),
        (lambda m: m.update(tasks=[]), "tasks must be a list"),
        (lambda m: m["tasks"].pop(), "does not name"),
        (lambda m: m["tasks"].append(dict(m["tasks"][0])), "used twice"),
        (lambda m: m["tasks"][0].update(name="../../one"), "is no name"),
        (lambda m: m["tasks"][0].update(weight=0), "weight of task 'one'"),
        (lambda m: m["tasks"][0].update(weight=float("inf")), "weight of task 'one'"),
        (lambda m: m["tasks"][0].pop("title"), "title of task 'one'"),
    ],
)
def test_a_wrong_declaration_is_refused(folder: Path, change: Callable[[dict], object], message: str) -> None:
    _edit_yaml(folder / "suite.yaml", change)
    with pytest.raises(SuiteError) as caught:
        load_suite(folder, require_lock=False)
    assert message in str(caught.value)


def _link(folder: Path) -> None:
    (folder / "data" / "one.jsonl").unlink()
    (folder / "data" / "one.jsonl").symlink_to("/etc/passwd")


def _linked_folder(folder: Path) -> None:
    (folder / "data").rename(folder.parent / "elsewhere")
    (folder / "data").symlink_to(folder.parent / "elsewhere")


def _pipe(folder: Path) -> None:
    (folder / "tasks" / "one.yaml").unlink()
    os.mkfifo(folder / "tasks" / "one.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_link, "only plain files"),
        (_linked_folder, "only plain files"),
        (_pipe, "only plain files"),
        (lambda f: (f / "run.py").write_text("x"), "does not belong in a suite"),
        (lambda f: (f / "tasks" / "utils.py").write_text("x"), "does not belong in a suite"),
        (lambda f: (f / "data" / "more").mkdir(), "only plain files"),
        (lambda f: (f / "data" / "three.jsonl").write_text("{}"), "does not name"),
        (lambda f: (f / "data" / "one.jsonl").write_text(""), "0 lines"),
        (lambda f: (f / "tasks" / "one.yaml").write_text("a: " + "[" * 5000), "tasks/one.yaml: n"),
        (lambda f: (f / "tasks" / "one.yaml").write_text("x" * 300_000), "larger than"),
        (lambda f: (f / "suite.yaml").unlink(), "suite.yaml is missing"),
    ],
)
def test_a_hostile_folder_is_refused(folder: Path, change: Callable[[Path], object], message: str) -> None:
    change(folder)
    with pytest.raises(SuiteError) as caught:
        load_suite(folder, require_lock=False)
    assert message in str(caught.value)


def test_a_large_file_is_not_read_to_its_end(folder: Path) -> None:
    with (folder / "data" / "one.jsonl").open("r+b") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(SuiteError, match="larger than 16777216 bytes"):
        load_suite(folder)


def test_the_commands_lock_and_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _edit_yaml(folder / "suite.yaml", lambda data: data.update(title="Other"))
    assert main(["suite", "verify", str(folder)]) == 2
    assert "differs from its lock" in capsys.readouterr().err
    assert main(["suite", "lock", str(folder)]) == 0
    assert main(["suite", "verify", str(folder)]) == 0
    assert "small version 1: 2 tasks, 6 items, sha256:" in capsys.readouterr().out
    assert main(["suite", "verify", str(folder / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_lm_eval_scores_the_gold_answers_full_and_others_not(folder: Path) -> None:
    """The task files are lm-eval's own: its filter finds the answer, its metric compares it."""
    from lm_eval.api.metrics import exact_match_hf_evaluate  # noqa: PLC0415  slow to import
    from lm_eval.filters import build_filter_ensemble  # noqa: PLC0415

    config = load_suite(folder).task_configs()["one"]["filter_list"][0]
    steps = [(step["function"], {k: v for k, v in step.items() if k != "function"}) for step in config["filter"]]
    (pattern, arguments), (last, _) = steps
    assert (pattern, last) == ("regex", "take_first")
    ensemble = build_filter_ensemble(config["name"], [(pattern, arguments), (last, None)])
    replies = {" 0 5": "0 5", "0 5 \r": "0 5", "": "[invalid]", "   ": "[invalid]", " a  b": "a  b", " b ": "b"}
    regex, take_first = (step() for step in ensemble.filters)
    extracted = list(take_first.apply(regex.apply([[reply] for reply in replies], [{}] * len(replies)), None))
    assert extracted == list(replies.values())
    assert exact_match_hf_evaluate(predictions=["0 5"], references=["0 5"])["exact_match"] == 1.0
    assert exact_match_hf_evaluate(predictions=["0 5 "], references=["0 5"])["exact_match"] == 0.0


def test_the_demo_open_suite_is_locked_and_large_enough() -> None:
    suite = verify_suite(OPEN)
    assert len(suite.tasks) >= 8
    assert suite.item_count >= 480
    assert suite.visibility == "open"
