"""Runs a suite's tasks through lm-eval and reads item scores out of its samples.

lm-eval renders the prompts, applies the filters and computes the metrics, seeded as its `simple_evaluate` is. It never
sees a network, unless a trusted suite declares that its data come from a hub: tasks come from the suite, data from its
files, into a cache that lives as long as the run. What counts as an item's score is the metric and filter that the
suite names, or the task's first ones.
"""

import contextlib
import logging
import math
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tiltyard_eval.errors import RunFailed
from tiltyard_eval.items import FORMAT_FAILURE, Asked, ItemScore, LeafTask, labelled, score_item
from tiltyard_eval.lm_eval_loading import load_evaluate, templates_compiled_once
from tiltyard_eval.questions import LOGLIKELIHOOD, Answer, AnyQuestion, Question
from tiltyard_eval.suite import Suite, SuiteTask

_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_QUIET: Final = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# What `simple_evaluate` seeds by default, so that few-shot examples and processed documents are the same.
_STOCK_RANDOM_SEED: Final = 0
_STOCK_NUMPY_SEED: Final = 1234
_STOCK_FEWSHOT_SEED: Final = 1234


@dataclass(frozen=True)
class Evaluation:
    """What a whole suite gave.

    Args:
        items: All items, in the suite's order of tasks.
        generation: For each task of the suite that generates, its settings.
        metrics: For each task of the suite, lm-eval's aggregated metrics by `metric,filter`; none for a task of which
            an item has a faulty answer.
        document: lm-eval's whole result, with its samples.
    """

    items: tuple[ItemScore, ...]
    generation: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Mapping[str, float]]
    document: Mapping[str, Any]


def evaluate_suite(suite: Suite, ask: Callable[[Sequence[AnyQuestion]], Mapping[str, Answer]]) -> Evaluation:
    """Ask and score the whole suite.

    Args:
        suite: A suite whose lock has been checked.
        ask: Called once with all questions of all tasks; returns an answer for every question's key.

    Raises:
        RunFailed: Whatever `ask` raises; or the suite's tasks cannot be loaded or scored.
    """

    def ask_permitted(questions: Sequence[AnyQuestion]) -> Mapping[str, Answer]:
        _check_permitted(suite, questions)
        return ask(questions)

    with tempfile.TemporaryDirectory(prefix="tiltyard-eval-") as cache, _surroundings(Path(cache), suite):
        evaluate = load_evaluate()  # takes seconds, and reads the environment set above

        from tiltyard_eval.lm import ServerLM  # noqa: PLC0415 - imports lm-eval
        from tiltyard_eval.tasks import load_tasks  # noqa: PLC0415

        random.seed(_STOCK_RANDOM_SEED)
        np.random.seed(_STOCK_NUMPY_SEED)
        tasks = load_tasks(suite, Path(cache), fewshot_seed=_STOCK_FEWSHOT_SEED)
        model = ServerLM(ask_permitted, tasks.loaded["tasks"].values())
        try:
            with templates_compiled_once():
                document = evaluate(
                    model,
                    tasks.loaded,
                    bootstrap_iters=0,
                    log_samples=True,
                    apply_chat_template=suite.chat is not None,
                    system_instruction=suite.chat.system if suite.chat else None,
                    fewshot_as_multiturn=suite.chat.multiturn if suite.chat else False,
                )
        except OverflowError as error:  # exp(-mean) of log-likelihoods below -709
            message = "The server's log-likelihoods are so low that lm-eval's perplexity of them is not finite."
            raise RunFailed("protocol_error", message) from error
        items: list[ItemScore] = []
        generation: dict[str, Mapping[str, Any]] = {}
        metrics: dict[str, Mapping[str, float]] = {}
        for task in suite.tasks:
            leaves = tasks.leaves[task.name]
            scored = _task_items(task, leaves, document["samples"], model.answers)
            items += scored
            metrics[task.name] = {} if any(_is_fault(item) for item in scored) else _metrics(task.name, document)
            if (settings := _generation(leaves, document["samples"])) is not None:
                generation[task.name] = settings
    return Evaluation(tuple(items), generation, metrics, document)


def _check_permitted(suite: Suite, questions: Iterable[AnyQuestion]) -> None:
    """Refuse log-likelihoods where the suite does not trust the server with the answers.

    The questions decide, not a task's output type: a task written in Python may ask for both.
    """
    if all(question.kind != LOGLIKELIHOOD for question in questions):
        return
    if suite.chat:
        raise RunFailed("infra_error", "The suite asks for log-likelihoods of conversations, which no adapter offers.")
    if not suite.trusts_server:
        raise RunFailed(
            "infra_error",
            "The suite asks for log-likelihoods, whose requests contain the gold answers and whose numbers cannot be "
            "verified; its suite.yaml must declare `trusts_server: true`.",
        )


@contextlib.contextmanager
def _surroundings(cache: Path, suite: Suite) -> Iterator[None]:
    """Caches under `cache`, offline, and the libraries' chatter off standard output; a foreign suite's own folder."""
    before = dict(os.environ), sys.dont_write_bytecode
    os.environ.update(_QUIET)
    if not suite.network:
        os.environ.update({**_OFFLINE, "HF_HOME": str(cache), "HF_DATASETS_CACHE": str(cache / "datasets")})
    sys.dont_write_bytecode = True  # a trusted suite's functions leave nothing in its folder
    for name in ("lm_eval", "lm-eval", "datasets", "fsspec", "filelock"):
        logging.getLogger(name).setLevel(logging.ERROR)
    folder = contextlib.chdir(suite.root) if suite.foreign else contextlib.nullcontext()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr), folder:
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before[0])
            sys.dont_write_bytecode = before[1]


def _task_items(
    task: SuiteTask, leaves: Mapping[str, Any], samples: Mapping[str, Any], answers: Mapping[str, Answer]
) -> list[ItemScore]:
    """The items of all lm-eval tasks behind one task of the suite, numbered through."""
    items: list[ItemScore] = []
    for leaf, lm_task in leaves.items():
        chosen = _one_filter(samples[leaf], task)
        metric = task.metric or chosen[0]["metrics"][0]
        for sample in chosen:
            if metric not in sample:
                raise RunFailed("infra_error", f"The task {leaf} has no metric {metric!r}, which the suite names.")
            index = len(items) if len(leaves) > 1 else int(sample["doc_id"])
            asked = Asked([(question, answers[question.key]) for question in _questions(sample)])
            items.append(score_item(LeafTask(task.name, lm_task, metric), index, sample, asked))
    return labelled(items, task)


def _one_filter(samples: Sequence[dict[str, Any]], task: SuiteTask) -> list[dict[str, Any]]:
    """The samples under the filter that counts, by document."""
    name = task.filter or samples[0]["filter"]
    chosen = [sample for sample in samples if sample["filter"] == name]
    if not chosen:
        raise RunFailed("infra_error", f"The task {task.name} has no filter {name!r}, which the suite names.")
    return sorted(chosen, key=lambda sample: int(sample["doc_id"]))


def _questions(sample: Mapping[str, Any]) -> list[AnyQuestion]:
    from tiltyard_eval.lm import questions_of  # noqa: PLC0415 - see evaluate_suite

    return [
        question
        for arguments, responses in zip(sample["arguments"], sample["resps"], strict=True)
        for question in questions_of(arguments, repeats=len(responses))
    ]


def _is_fault(item: ItemScore) -> bool:
    return item.failure is not None and item.failure != FORMAT_FAILURE


def _metrics(name: str, document: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval's aggregated metrics of a task or group; standard errors are left out, they are not computed."""
    found = document.get("groups", {}).get(name) or document["results"].get(name, {})
    return {
        key: float(value)
        for key, value in found.items()
        if "," in key
        and "_stderr," not in key
        and isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def _generation(leaves: Mapping[str, Any], samples: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings of a task's first question that generates; None when it has none."""
    for leaf in leaves:
        for question in _questions(samples[leaf][0]):
            if isinstance(question, Question):
                settings = question.settings
                return {
                    "max_tokens": settings.max_tokens,
                    "temperature": settings.temperature,
                    "stop": list(settings.stop),
                    **settings.extra_fields(),
                }
    return None
