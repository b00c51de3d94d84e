"""Runs a suite's tasks through lm-eval and reads item scores out of its samples.

lm-eval renders the prompts, applies the filters and computes the metric per item. It never sees a network: tasks come
from the suite alone, data from its JSON Lines files, into a cache that lives as long as the run. What counts as an
item's score is the first metric under the first filter of its task.
"""

import contextlib
import logging
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tiltyard_eval.questions import Answer, Question
from tiltyard_eval.suite import NO_ANSWER, Suite

FORMAT_FAILURE: Final = "format"
_NOTHING_EXTRACTED: Final = frozenset({"", NO_ANSWER})
_OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class ItemScore:
    """One item of one task as the samples file shows it; `score` is in 0..1, `failure` a kind or None."""

    task: str
    index: int
    prompt: str
    answer: str
    expected: str
    extracted: str
    score: float
    failure: str | None
    latency_s: float


@dataclass(frozen=True)
class Evaluation:
    """All items, in the suite's order of tasks, and the generation settings of each task."""

    items: tuple[ItemScore, ...]
    generation: Mapping[str, Mapping[str, Any]]


def evaluate_suite(suite: Suite, ask: Callable[[Sequence[Question]], Mapping[str, Answer]]) -> Evaluation:
    """Ask and score the whole suite.

    Args:
        suite: A suite whose lock has been checked.
        ask: Called once with every question; returns an answer for every question's key.

    Raises:
        RunFailed: Whatever `ask` raises.
    """
    with tempfile.TemporaryDirectory(prefix="tiltyard-eval-") as cache, _quiet(Path(cache)):
        from lm_eval.evaluator import evaluate  # noqa: PLC0415 - takes seconds, and reads the environment set above
        from lm_eval.tasks import TaskManager  # noqa: PLC0415

        from tiltyard_eval.lm import ServerLM, question_of  # noqa: PLC0415

        manager = TaskManager(include_path=None, include_defaults=False)
        model = ServerLM(ask)
        outcome = evaluate(model, manager.load(_task_specs(suite, cache)), bootstrap_iters=0, log_samples=True)
        items: list[ItemScore] = []
        generation: dict[str, Mapping[str, Any]] = {}
        for task in suite.tasks:
            samples = _first_filter(outcome["samples"][task.name])
            for sample in samples:
                question = question_of(sample["arguments"][0])
                items.append(_item_score(task.name, sample, question, model.answers[question.key]))
            settings = question_of(samples[0]["arguments"][0]).settings
            generation[task.name] = {
                "max_tokens": settings.max_tokens,
                "temperature": settings.temperature,
                "stop": list(settings.stop),
            }
    return Evaluation(tuple(items), generation)


@contextlib.contextmanager
def _quiet(cache: Path) -> Iterator[None]:
    """Offline, with caches under `cache`, and with the libraries' chatter kept off standard output."""
    before = dict(os.environ)
    os.environ.update({**_OFFLINE, "HF_HOME": str(cache), "HF_DATASETS_CACHE": str(cache / "datasets")})
    for name in ("lm_eval", "lm-eval", "datasets", "fsspec", "filelock"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _task_specs(suite: Suite, cache: str) -> list[dict[str, Any]]:
    specs = list(suite.task_configs().values())
    for spec in specs:
        # Given explicitly as well, since `datasets` reads the environment only when it is first imported.
        spec["dataset_kwargs"]["cache_dir"] = cache
    return specs


def _first_filter(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples under the task's first filter, by document."""
    chosen = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    return sorted(chosen, key=lambda sample: int(sample["doc_id"]))


def _item_score(task: str, sample: dict[str, Any], question: Question, answer: Answer) -> ItemScore:
    extracted = sample["filtered_resps"][0]
    extracted = extracted if isinstance(extracted, str) else str(extracted)
    raw = float(sample[sample["metrics"][0]])
    # Neither a fault nor an empty answer nor a metric that is not a number is ever worth anything.
    score = min(1.0, max(0.0, raw)) if math.isfinite(raw) else 0.0
    failure = answer.failure
    if failure is not None or not answer.text.strip():
        score = 0.0
    if failure is None and score == 0.0 and (not answer.text.strip() or extracted.strip() in _NOTHING_EXTRACTED):
        failure = FORMAT_FAILURE
    return ItemScore(
        task=task,
        index=int(sample["doc_id"]),
        prompt=question.prompt,
        answer=answer.text,
        expected=str(sample["target"]),
        extracted=extracted,
        score=score,
        failure=failure,
        latency_s=answer.latency_s,
    )
