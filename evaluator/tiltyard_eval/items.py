"""From lm-eval's sample of a document to the item's score in 0..1.

The score is lm-eval's own metric, with three exceptions that keep faults and indifference from paying. An item with a
faulty or empty answer scores 0. Choices that share the highest log-likelihood share the credit, where lm-eval takes the
first of them. A metric of log-likelihoods without upper bound counts as the probability behind it: of the continuation
(`perplexity`), of one word (`word_perplexity`) or of one byte (`byte_perplexity`, `bits_per_byte`), the geometric mean.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tiltyard_eval.errors import RunFailed
from tiltyard_eval.questions import Answer, AnyQuestion, Question, ScoringQuestion
from tiltyard_eval.suite import NO_ANSWER, SuiteItem, SuiteTask

FORMAT_FAILURE: Final = "format"
_NOTHING_EXTRACTED: Final = frozenset({"", NO_ANSWER})
_PER_UNIT: Final = frozenset({"word_perplexity", "byte_perplexity", "bits_per_byte"})
_ARGMAX: Final = frozenset({"acc", "acc_norm", "acc_bytes"})


@dataclass(frozen=True)
class ItemScore:
    """One item of one task as the samples file shows it; `score` is in 0..1, `failure` a kind or None.

    `tied` says that the score differs from lm-eval's, because choices with the same log-likelihood share the credit.
    `cluster` is the same for all items of one skeleton, on the open suite and on the hidden one. `twin` names, by task
    and index, the open item whose paraphrase twin this is. Both tell about the question: they are as secret as it is.
    """

    task: str
    index: int
    prompt: str
    answer: str
    expected: str
    extracted: str
    score: float
    failure: str | None
    latency_s: float
    tied: bool = False
    cluster: str | None = None
    twin: Mapping[str, str | int] | None = None


@dataclass(frozen=True)
class LeafTask:
    """An lm-eval task object under the suite's name for it, and the metric that counts."""

    name: str
    lm_task: Any
    metric: str


@dataclass(frozen=True)
class Asked:
    """A document's questions and their answers, in order; at least one."""

    pairs: Sequence[tuple[AnyQuestion, Answer]]

    @property
    def failure(self) -> str | None:
        """The kind of the first fault."""
        return next((answer.failure for _, answer in self.pairs if answer.failure is not None), None)

    @property
    def silent(self) -> bool:
        """Whether texts were asked for and all of them are empty."""
        return not any(isinstance(one, ScoringQuestion) or answer.text.strip() for one, answer in self.pairs)


def score_item(task: LeafTask, index: int, sample: Mapping[str, Any], asked: Asked) -> ItemScore:
    """The item of one sample, which is as lm-eval logs it, under the filter that counts.

    Raises:
        RunFailed: The metric is no share (0..1) of anything and has no probability behind it.
    """
    question, answer = asked.pairs[0]
    failure = asked.failure
    value, tied = (0.0, False) if failure is not None or asked.silent else _value(sample, task)
    if isinstance(question, Question):
        filtered = sample["filtered_resps"][0]
        shown = (question.prompt, answer.text, filtered if isinstance(filtered, str) else str(filtered))
        if failure is None and value == 0.0 and (asked.silent or shown[2].strip() in _NOTHING_EXTRACTED):
            failure = FORMAT_FAILURE
    else:
        shown = _likeliest([(one, got) for one, got in asked.pairs if isinstance(one, ScoringQuestion)])
    prompt, text, extracted = shown
    return ItemScore(
        task=task.name,
        index=index,
        prompt=prompt,
        answer=text,
        expected=_expected(sample, task),
        extracted=extracted,
        score=value,
        failure=failure,
        latency_s=max(got.latency_s for _, got in asked.pairs),
        tied=tied,
    )


def labelled(items: Iterable[ItemScore], task: SuiteTask) -> list[ItemScore]:
    """The same items of one task with cluster and twin, as the suite's data name them; lm-eval's own data name none."""
    if not task.items:
        return list(items)
    return [_labelled(item, task.items[item.index]) for item in items]


def _labelled(item: ItemScore, source: SuiteItem) -> ItemScore:
    link = source.twin
    twin: dict[str, str | int] | None = None if link is None else {"task": link[0], "index": link[1]}
    return replace(item, cluster=source.cluster, twin=twin)


def _likeliest(asked: Sequence[tuple[ScoringQuestion, Answer]]) -> tuple[str, str, str]:
    """Context, likeliest continuation, and its log-likelihood as text; the first of several with the same."""
    question, answer = max(asked, key=lambda pair: -math.inf if pair[1].logprob is None else pair[1].logprob)
    return question.context, question.continuation, "" if answer.logprob is None else repr(answer.logprob)


def _expected(sample: Mapping[str, Any], task: LeafTask) -> str:
    """The gold answer: of multiple choice the text rather than its number."""
    target = sample["target"]
    if task.lm_task.OUTPUT_TYPE == "multiple_choice" and isinstance(target, int) and not isinstance(target, bool):
        choices = task.lm_task.doc_to_choice(sample["doc"])
        if 0 <= target < len(choices):
            return str(choices[target])
    return str(target)


def _value(sample: Mapping[str, Any], task: LeafTask) -> tuple[float, bool]:
    """The item's value in 0..1, and whether it differs from lm-eval's because of a tie."""
    shared = _shared_credit(sample, task)
    if shared is not None:
        return shared, True
    metric = task.metric
    raw = sample[metric]
    if metric == "perplexity":
        return math.exp(min(0.0, raw)), False
    if metric in _PER_UNIT and isinstance(raw, tuple | list) and len(raw) == 2:
        logprob, units = raw
        return (math.exp(min(0.0, logprob / units)) if units else 0.0), False
    if task.lm_task.higher_is_better().get(metric) is False or not _is_number(raw):
        raise _unusable(metric, sample)
    value = float(raw)
    if not math.isfinite(value):
        return 0.0, False
    if not 0 <= value <= 1:
        raise _unusable(metric, sample)
    return value, False


def _is_number(raw: Any) -> bool:
    try:
        float(raw)
    except (TypeError, ValueError):
        return False
    return True


def _unusable(metric: str, sample: Mapping[str, Any]) -> RunFailed:
    others = ", ".join(sample["metrics"])
    return RunFailed(
        "infra_error",
        f"The suite's metric {metric} gives no score from 0 to 1 for each item, where more is better. Name another one "
        f"as `metric` of the task in suite.yaml; the task has {others}.",
    )


def _shared_credit(sample: Mapping[str, Any], task: LeafTask) -> float | None:
    """The gold choices' share of those with the highest value; None when one choice alone has it, or none is chosen."""
    lm_task = task.lm_task
    if lm_task.OUTPUT_TYPE != "multiple_choice" or task.metric not in _ARGMAX:
        return None
    if callable(lm_task.config.process_results):
        return None
    choices = lm_task.doc_to_choice(sample["doc"])
    logprobs = [response[0] for response in sample["filtered_resps"][: len(choices)]]
    values = [value / _length(choice, task.metric) for value, choice in zip(logprobs, choices, strict=True)]
    best = max(values)
    tied = {number for number, value in enumerate(values) if value == best}
    if len(tied) < 2:
        return None
    target = lm_task.doc_to_text(sample["doc"]) if lm_task.multiple_input else sample["target"]
    golds = target if isinstance(target, list) else [target]
    numbers = {choices.index(gold) if isinstance(gold, str) and gold in choices else gold for gold in golds}
    return len(tied & numbers) / len(tied)


def _length(choice: str, metric: str) -> float:
    if metric == "acc_norm":
        return float(len(choice)) or math.nan
    return (float(len(choice.encode())) or math.nan) if metric == "acc_bytes" else 1.0
