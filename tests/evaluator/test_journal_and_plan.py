"""The journal's promises, and the plan that makes a resumed run ask the same batches."""

from pathlib import Path

import pytest

from tiltyard_eval.adapters import GenerationSettings, clip
from tiltyard_eval.journal import Journal, JournalError
from tiltyard_eval.lm import question_of
from tiltyard_eval.questions import Question, plan_batches

LINE = GenerationSettings(max_tokens=16, temperature=0.0, stop=("\n",))
LONG = GenerationSettings(max_tokens=256, temperature=0.0, stop=("END", "\n\n"))


def test_entries_come_back_in_order_without_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, fresh=True) as journal:
        for number in range(40):
            journal.append({"number": number, "text": "\u2028\n"})
    with path.open("ab") as file:
        file.write(b'{"number": 40')
    with Journal(path, fresh=False) as journal:
        assert [entry["number"] for entry in journal.entries] == list(range(40))
        journal.append({"number": 40})
    with Journal(path, fresh=False) as journal:
        assert journal.entries[-1] == {"number": 40}


def test_fresh_journal_refuses_a_used_one_and_resume_needs_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with pytest.raises(JournalError, match="does not exist"):
        Journal(path, fresh=False)
    with Journal(path, fresh=True) as journal:
        journal.append({"a": 1})
    with pytest.raises(JournalError, match="already holds a run"):
        Journal(path, fresh=True)


def test_journal_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, fresh=True) as journal:
        journal.append({"a": 1})
        with pytest.raises(JournalError, match="another evaluation"):
            Journal(path, fresh=False)


def test_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"a": 1}\nnot json\n{"a": 2}\n')
    with pytest.raises(JournalError, match="line 2"):
        Journal(path, fresh=False)


def test_plan_asks_equal_questions_once_in_an_order_of_the_seed() -> None:
    questions = [Question(f"q{n % 10}", LINE) for n in range(30)] + [Question("q1", LONG)]
    plan = plan_batches(questions, seed=1, batch_sizes={"generate": 4})
    assert sorted(len(batch.questions) for batch in plan) == [1, 2, 4, 4]
    assert all(len({question.settings for question in batch.questions}) == 1 for batch in plan)
    assert plan == plan_batches(reversed(questions), seed=1, batch_sizes={"generate": 4})
    assert plan != plan_batches(questions, seed=2, batch_sizes={"generate": 4})


def test_text_is_clipped_at_the_first_of_all_stop_strings() -> None:
    assert clip("one\n\ntwo END", LONG) == "one"
    assert clip("one END\n\ntwo", LONG) == "one "
    assert len(clip("x" * 9999, LONG)) == 4096
    assert clip("a\0b", LONG) == "a\ufffdb"
    assert GenerationSettings(max_tokens=2048, temperature=0.0, stop=()).max_chars == 8192


def test_lm_eval_settings_become_a_question() -> None:
    question = question_of(("p", {"until": ["\n"], "max_gen_toks": 16, "do_sample": False, "temperature": 0.7}))
    assert question == Question("p", LINE)
    question = question_of(("p", {"until": "\n", "max_gen_toks": 16, "top_k": 5}))
    assert question.settings.extra_fields() == {"top_k": 5}
    assert question.key != Question("p", LINE).key
