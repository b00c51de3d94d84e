"""Questions and the plan in which they are asked.

A question is a prompt with its generation settings and nothing else: no id, no task, no gold answer. Equal questions
are asked once. The plan depends on the questions and the seed alone, so that a resumed run, or another machine, asks
the same questions in the same company.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from tiltyard_eval.adapters import GenerationSettings
from tiltyard_eval.identity import sha256_of


@dataclass(frozen=True)
class Question:
    prompt: str
    settings: GenerationSettings

    @cached_property
    def key(self) -> str:
        """SHA-256 over prompt and settings: the name of the question in the journal."""
        settings = self.settings
        return sha256_of([self.prompt, settings.max_tokens, settings.temperature, list(settings.stop)])


@dataclass(frozen=True)
class Answer:
    """What the server gave: a text, or the kind of fault that stands in its place. Latency is that of its request."""

    text: str
    failure: str | None
    latency_s: float


@dataclass(frozen=True)
class Batch:
    """Questions with equal settings that are asked together."""

    index: int
    questions: tuple[Question, ...]


def plan_batches(questions: Iterable[Question], *, seed: int, batch_size: int) -> list[Batch]:
    """Deduplicate, shuffle by `seed`, and pack into batches of at most `batch_size` with equal settings."""
    unique = sorted({question.key: question for question in questions}.values(), key=lambda question: question.key)
    random.Random(seed).shuffle(unique)  # noqa: S311 - an order, not a secret
    filling: dict[GenerationSettings, list[Question]] = {}
    packed: list[list[Question]] = []
    for question in unique:
        pending = filling.setdefault(question.settings, [])
        if not pending:
            packed.append(pending)
        pending.append(question)
        if len(pending) == batch_size:
            filling[question.settings] = []
    return [Batch(index, tuple(batch)) for index, batch in enumerate(packed)]
