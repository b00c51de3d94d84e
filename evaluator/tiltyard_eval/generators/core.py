"""What a generator is: a family of questions with levels, phrasings and frames.

A *family* draws the content of a question (two numbers, a word, a list). A *phrasing* puts that content into a
sentence, and a *frame* puts the sentence into the shape of a prompt. Phrasing and frame together are the *surface*, so
that two suites can ask for the same skill in words that differ.

The same seed gives the same bytes on every machine and Python version: Python promises a stable sequence only for
``random.Random.random()``, so ``Rng`` derives every other draw from it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tiltyard_eval.checks import Check
from tiltyard_eval.skeletons import Skeleton

T = TypeVar("T")

LEVELS = (1, 2, 3, 4, 5)
MAX_PROMPT_CHARS = 200
MAX_ANSWER_CHARS = 32
# Of an extended family: a program, a map or a passage does not fit into what a short question has.
MAX_EXTENDED_PROMPT_CHARS = 800
MAX_EXTENDED_ANSWER_CHARS = 80

FRAMES: Mapping[str, str] = {
    "qa": "Q: {question}\nA:",
    "plain": "{question}\nAnswer:",
    "instruction": "Instruction: {question}\nResponse:",
    "chat": "User: {question}\nAssistant:",
    "problem": "Problem: {question}\nSolution:",
}


class GeneratorError(ValueError):
    """A family, level, frame or phrasing that does not exist, or a request that no generator can meet."""


class Rng:
    """A seeded source of draws whose results do not depend on the Python version."""

    def __init__(self, seed: int) -> None:
        """Start the stream of ``seed``, a non-negative integer of any size."""
        self._random = random.Random(seed).random  # noqa: S311  reproducible on purpose; secrets enter as the seed

    def below(self, bound: int) -> int:
        """An integer in ``0 .. bound - 1``; ``bound`` is far below 2**53, so the bias is negligible."""
        return int(self._random() * bound)

    def between(self, low: int, high: int) -> int:
        """An integer in ``low .. high``, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """One of ``options``."""
        return options[int(self._random() * len(options))]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random() < probability

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """``count`` different positions of ``options``, in random order."""
        pool = list(options)
        for i in range(count):
            j = i + int(self._random() * (len(pool) - i))
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """All of ``options`` in random order."""
        return self.sample(options, len(options))

    def weighted(self, cumulative: Sequence[float]) -> int:
        """An index drawn by cumulative weights; the last one is the total."""
        point = self._random() * cumulative[-1]
        for index, edge in enumerate(cumulative):
            if point < edge:
                return index
        return len(cumulative) - 1


@dataclass(frozen=True, slots=True)
class Item:
    """One question: the whole prompt, its gold answer, the task it belongs to and its level (1..5).

    `skeleton` is what the family drew. `twin` names the open item, by task and index, whose paraphrase twin this is.
    With `checks` every answer that fulfils them is right, and the gold answer is one of them.
    """

    prompt: str
    answer: str
    task: str
    level: int
    skeleton: Skeleton
    twin: tuple[str, int] | None = None
    checks: tuple[Check, ...] = ()

    @property
    def cluster(self) -> str:
        """The same for all items of one skeleton."""
        return self.skeleton.cluster(self.answer)

    def to_json(self) -> str:
        """The item as one line of training data: JSON, keys in a fixed order, ASCII only."""
        return json.dumps(self._training_fields())

    def to_suite_json(self) -> str:
        """The item as one line of a suite's data: the same with its skeleton, its checks and, of a twin, the link."""
        fields = self._training_fields() | {"skeleton": self.skeleton.to_dict()}
        if self.checks:
            fields["checks"] = [check.to_dict() for check in self.checks]
        if self.twin is not None:
            fields["twin"] = {"task": self.twin[0], "index": self.twin[1]}
        return json.dumps(fields)

    def _training_fields(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "answer": self.answer, "task": self.task, "level": self.level}


Draw = tuple[Mapping[str, object], str]
"""The fields that a phrasing may name, and the gold answer."""

Checker = Callable[[Mapping[str, str]], tuple[Check, ...]]
"""From a skeleton's fields to what an answer must fulfil."""


@dataclass(frozen=True)
class Family:
    """A named skill: how to draw its content at a level, and the ways to ask for it.

    Where more than one answer is right, `checks` says what they have in common. An `extended` family has the higher
    limits of length, and is not part of `families: all`, whose bytes would change.
    """

    name: str
    title: str
    group: str
    phrasings: Mapping[str, str]
    draw: Callable[[Rng, int], Draw]
    extended: bool = False
    checks: Checker | None = None

    @property
    def max_prompt_chars(self) -> int:
        """The most characters of a prompt."""
        return MAX_EXTENDED_PROMPT_CHARS if self.extended else MAX_PROMPT_CHARS

    @property
    def max_answer_chars(self) -> int:
        """The most characters of a gold answer."""
        return MAX_EXTENDED_ANSWER_CHARS if self.extended else MAX_ANSWER_CHARS

    def item(self, rng: Rng, level: int, frame: str, phrasing: str, task: str) -> Item:
        """Draw one item on the given surface; content that makes the prompt or answer too long is drawn again."""
        for _ in range(100):
            drawn, answer = self.draw(rng, level)
            fields = {name: str(value) for name, value in drawn.items()}
            prompt = self.prompt(fields, frame, phrasing)
            fits = len(prompt) <= self.max_prompt_chars and 0 < len(answer) <= self.max_answer_chars
            if fits and "\n" not in answer:
                return Item(prompt, answer, task, level, Skeleton(self.name, fields), checks=self.checks_of(fields))
        raise GeneratorError(f"family {self.name!r} level {level}: no draw fits the length limits")

    def prompt(self, fields: Mapping[str, str], frame: str, phrasing: str) -> str:
        """The fields of a skeleton on the given surface; raises ``KeyError`` when the phrasing names another field."""
        return FRAMES[frame].format(question=self.phrasings[phrasing].format_map(fields))

    def checks_of(self, fields: Mapping[str, str]) -> tuple[Check, ...]:
        """What an answer to the skeleton must fulfil; none where one answer alone is right."""
        return self.checks(fields) if self.checks else ()

    def surface(self, fields: Mapping[str, str], prompt: str) -> tuple[str, str] | None:
        """Frame and phrasing that make this prompt of the fields; None when none does."""
        for frame in FRAMES:
            for phrasing in self.phrasings:
                try:
                    if self.prompt(fields, frame, phrasing) == prompt:
                        return frame, phrasing
                except KeyError:
                    continue
        return None

    def items(
        self,
        rng: Rng | int,
        count: int,
        level: int,
        *,
        frames: Sequence[str] = tuple(FRAMES),
        phrasings: Sequence[str] | None = None,
        task: str | None = None,
    ) -> list[Item]:
        """Draw ``count`` items (repeats possible) from a stream or a seed, surfaces at random among those named."""
        check_surface(self, [level], frames, phrasings or ())
        stream = Rng(rng) if isinstance(rng, int) else rng
        letters = tuple(phrasings or self.phrasings)
        return [
            self.item(stream, level, stream.pick(frames), stream.pick(letters), task or self.name) for _ in range(count)
        ]


REGISTRY: dict[str, Family] = {}
"""Every family by its stable name, in the order of definition."""


def family(
    name: str,
    *,
    title: str,
    group: str,
    phrasings: Sequence[str],
    extended: bool = False,
    checks: Checker | None = None,
) -> Callable[..., Callable[[Rng, int], Draw]]:
    """Register a drawing function as a family; its phrasings are called a, b, c, … in the order given."""

    def register(draw: Callable[[Rng, int], Draw]) -> Callable[[Rng, int], Draw]:
        if name in REGISTRY:
            raise GeneratorError(f"two families are named {name!r}")
        letters = {chr(ord("a") + i): text for i, text in enumerate(phrasings)}
        REGISTRY[name] = Family(name, title, group, letters, draw, extended, checks)
        return draw

    return register


def get_family(name: str) -> Family:
    """The family of that name; raises ``GeneratorError`` naming the ones there are."""
    if name not in REGISTRY:
        raise GeneratorError(f"no family {name!r}; there are {', '.join(REGISTRY)}")
    return REGISTRY[name]


def check_surface(fam: Family, levels: Sequence[int], frames: Sequence[str], phrasings: Sequence[str]) -> None:
    """Raise ``GeneratorError`` when a level, frame or phrasing does not exist for the family."""
    for level in levels:
        if level not in LEVELS:
            raise GeneratorError(f"family {fam.name!r}: level {level!r} is not one of 1 to 5")
    for frame in frames:
        if frame not in FRAMES:
            raise GeneratorError(f"family {fam.name!r}: no frame {frame!r}; there are {', '.join(FRAMES)}")
    for phrasing in phrasings:
        if phrasing not in fam.phrasings:
            raise GeneratorError(f"family {fam.name!r}: no phrasing {phrasing!r}; it has {', '.join(fam.phrasings)}")
