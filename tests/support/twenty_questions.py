"""Twenty questions and a session that asks them, for tests of single servers without a suite and without lm-eval."""

from collections.abc import Mapping
from pathlib import Path

from eval_suites import RecordingReporter

from tiltyard_eval.adapters import GenerationSettings
from tiltyard_eval.config import RunConfig, RunFacts
from tiltyard_eval.journal import Journal
from tiltyard_eval.questions import Answer, Question
from tiltyard_eval.retry import RetryPolicy
from tiltyard_eval.session import Session

SETTINGS = GenerationSettings(max_tokens=16, temperature=0.0, stop=("\n",))
QUESTIONS = [Question(f"secret question {n}:", SETTINGS) for n in range(20)]
ANSWERS = {question.prompt: f" secret answer {n}" for n, question in enumerate(QUESTIONS)}


def ask(folder: Path, url: str, **settings: object) -> tuple[Mapping[str, Answer], RunFacts]:
    defaults = {
        "adapter": "openai",
        "concurrency": 1,
        "batch_size": 5,
        "request_timeout_s": 5.0,
        "start_timeout_s": 5.0,
        "deadline_s": 30.0,
    }
    config = RunConfig(url=url, suite="", **{**defaults, **settings})  # type: ignore[arg-type]
    facts = RunFacts()
    with Journal(folder / "journal.jsonl", fresh=True) as journal:
        session = Session(config, journal, facts, RecordingReporter(), RetryPolicy(pauses_s=(0.01, 0.02)))
        session.prepare()
        return session.ask(QUESTIONS), facts
