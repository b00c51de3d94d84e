"""Questions and the plan in which they are asked.

A question is what the server needs and nothing else: no id, no task, no gold answer. (A log-likelihood question holds a
continuation to be scored, which may be the gold answer; that is why ranked suites ask for texts.) Equal questions are
asked once. The plan depends on the questions and the seed alone, so that a resumed run, or another machine, asks the
same questions in the same company.
"""

import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tiltyard_eval.adapters import GenerationSettings
from tiltyard_eval.identity import sha256_of
from tiltyard_eval.prefixes import prefix_order

GENERATE = "generate"
CHAT = "chat"
LOGLIKELIHOOD = "loglikelihood"


@dataclass(frozen=True)
class Question:
    """A prompt to be continued, or a conversation (`chat`: the prompt is its JSON) to be answered.

    `repeat` counts the times that one prompt is asked with a temperature; the request's seed differs by it.
    """

    prompt: str
    settings: GenerationSettings
    repeat: int = 0
    chat: bool = False

    @cached_property
    def key(self) -> str:
        """SHA-256 over prompt and settings: the name of the question in the journal."""
        settings = self.settings
        parts: list[Any] = [self.prompt, settings.max_tokens, settings.temperature, list(settings.stop)]
        if settings.extra or self.repeat or self.chat:
            parts.append({"extra": [list(pair) for pair in settings.extra], "repeat": self.repeat, "chat": self.chat})
        return sha256_of(parts)

    @property
    def kind(self) -> str:
        return CHAT if self.chat else GENERATE

    @property
    def unit(self) -> str:
        """Questions of one unit are asked side by side."""
        return self.key

    @property
    def beginning(self) -> str:
        """The text that a server reads first, and need not read again for the next question that begins alike."""
        return self.prompt

    @property
    def company(self) -> Hashable:
        """Only questions with equal company may share a request."""
        return (self.settings, self.repeat, self.chat)


@dataclass(frozen=True)
class ScoringQuestion:
    """A continuation whose log-likelihood after the context is asked for; an empty context is the start of a text."""

    context: str
    continuation: str

    @cached_property
    def key(self) -> str:
        """SHA-256 over both texts."""
        return sha256_of({"context": self.context, "continuation": self.continuation})

    @property
    def kind(self) -> str:
        return LOGLIKELIHOOD

    @cached_property
    def unit(self) -> str:
        """Continuations of one context go together, so that a server reads the context once."""
        return sha256_of({"context": self.context})

    @property
    def beginning(self) -> str:
        return self.context

    @property
    def company(self) -> Hashable:
        return LOGLIKELIHOOD


AnyQuestion = Question | ScoringQuestion


@dataclass(frozen=True)
class Answer:
    """What the server gave: a text or a log-likelihood, or the kind of fault that stands in its place.

    `text` is empty for a log-likelihood, `logprob` None for a text. Latency is that of the request.
    """

    text: str
    failure: str | None
    latency_s: float
    logprob: float | None = None
    is_greedy: bool = False


@dataclass(frozen=True)
class Batch:
    """Questions of equal company that are asked together."""

    questions: tuple[AnyQuestion, ...]

    @cached_property
    def key(self) -> str:
        """SHA-256 over the questions: the name of the batch in the journal."""
        return sha256_of([question.key for question in self.questions])


def plan_batches(questions: Iterable[AnyQuestion], *, seed: int, batch_sizes: Mapping[str, int]) -> list[Batch]:
    """Deduplicate, order by shared beginnings and `seed` (see `prefixes`), and pack into batches.

    A batch holds questions of equal company, at most as many as `batch_sizes` says for their kind.
    A unit is not torn apart as long as it fits into a batch.
    """
    filling: dict[Hashable, list[AnyQuestion]] = {}
    packed: list[list[AnyQuestion]] = []
    for unit in _shuffled_units(questions, seed):
        company, size = unit[0].company, batch_sizes[unit[0].kind]
        pending = filling.get(company, [])
        if len(pending) + len(unit) > size:
            pending = []  # the rest of a unit that is too large begins a batch of its own
        for question in unit:
            if not pending or len(pending) == size:
                pending = []
                packed.append(pending)
            pending.append(question)
        filling[company] = pending
    return [Batch(tuple(batch)) for batch in packed]


def _shuffled_units(questions: Iterable[AnyQuestion], seed: int) -> Sequence[list[AnyQuestion]]:
    units: dict[str, list[AnyQuestion]] = {}
    for question in sorted({question.key: question for question in questions}.values(), key=lambda one: one.key):
        units.setdefault(question.unit, []).append(question)
    listed = [units[name] for name in sorted(units)]
    order = prefix_order([unit[0].beginning for unit in listed], random.Random(seed))  # noqa: S311 - not a secret
    return [listed[position] for position in order]
