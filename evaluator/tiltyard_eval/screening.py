"""The screen that a family of questions passes before a suite may use it.

A generator that is not deterministic makes a published secret worthless; one whose own answer is not worth full marks,
or that pays for junk, makes scores that mean nothing (of reasoning-gym's data sets several do). So every family is
asked for a thousand questions. lm-eval itself scores its own answers, and to each question one piece of a bank of junk,
with the filter and the metric that a suite would use; all the junk is held against every question without lm-eval.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tiltyard_eval.build import Recipe, write_suite
from tiltyard_eval.checks import fulfils
from tiltyard_eval.generators.core import LEVELS, Family, GeneratorError, Item, Rng
from tiltyard_eval.generators.mix import TaskSpec
from tiltyard_eval.harness import evaluate_suite
from tiltyard_eval.questions import Answer, AnyQuestion, Question
from tiltyard_eval.suite import SuiteError, load_suite
from tiltyard_eval.suite.task_yaml import ANSWER_PATTERN, NO_ANSWER

SCREEN_ITEMS: Final = 1000
_SEED: Final = 20_261_124
MAX_BEST_GUESS: Final = 0.6
"""The share of a level's questions that one constant answer may get right: a half, for yes or no, and noise.

Of 200 questions, one side of a fair coin is right at more than that with a probability of 0.4 %.
"""
NO_DIGEST: Final = ""
"""Stands for the digest of a family that raised in the other process."""

JUNK: Final[tuple[str, ...]] = (
    *("", " ", ".", ",", "-", "?", "\t", "\x00", "\u200b", "[]", "{}", "()", "''", '""', "**", "```", "<|endoftext|>"),
    *("I don't know", "None", "null", "NaN", "inf", "undefined", "N/A", "error", "[invalid]", "answer", "Traceback"),
    *("the answer is", "Answer:", "A:", "Q:", "Response:", "lorem ipsum dolor sit amet", "qzxjv", "ß", "答案", "🙂"),
    *("999999999999", "-999999999999", "3.14159265", "1e999", "0x1F", "½", "yes no", "true false", "a b c d e f g h"),
    *(". . .", ". . . . .", "- - - -", "1 . . ."),
    *("\\boxed{}", "%s", "{question}", "{{answer}}", ".*", "NULL; DROP TABLE", "../../etc/passwd", "x" * 2000),
)
"""Answers that are right to no question of any family."""

ECHO: Final = "the question itself"


@dataclass(frozen=True)
class Screened:
    """What the screen found: `faults` is empty for a family that is admitted.

    `different` is the number of different prompts among those drawn. `best_guesses` is for each level the share of its
    questions, 0..1, that the one most frequent answer gets right: a family asked as yes or no has one half.
    """

    family: str
    different: int
    best_guesses: tuple[float, ...]
    faults: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """In words."""
        return "refused: " + "; ".join(self.faults) if self.faults else "admitted"

    @property
    def best_guess(self) -> float:
        """That of the level where guessing pays most."""
        return max(self.best_guesses, default=0.0)


def screen_family(fam: Family, *, items: int = SCREEN_ITEMS, other_process_digest: str | None = None) -> Screened:
    """Draw `items` questions over all levels and surfaces, and check them.

    Args:
        fam: The family.
        items: How many to draw. Whether a constant answer gets too far is only judged from `SCREEN_ITEMS` on, because
            of few questions one answer is often right by chance.
        other_process_digest: `digest_of` the same draw in another process, to be compared; `NO_DIGEST` when the family
            raised there; None when there was no other process.
    """
    try:
        drawn = draw(fam, items)
        again = draw(fam, items)
    except Exception as error:  # whatever a generator raises is what the screen is for
        return Screened(fam.name, 0, (), (f"raises {type(error).__name__}: {error}",))
    faults = []
    if digest_of(drawn) != digest_of(again):
        faults.append("not deterministic: the same seed gave other questions")
    elif other_process_digest == NO_DIGEST:
        faults.append("not deterministic: raises in another process")
    elif other_process_digest is not None and digest_of(drawn) != other_process_digest:
        faults.append("not deterministic: the same seed gave other questions in another process")
    answers: dict[str, str] = {}
    for item in drawn:
        if answers.setdefault(item.prompt, item.answer) != item.answer:
            faults.append(f"ambiguous: {item.prompt!r} has the answers {answers[item.prompt]!r} and {item.answer!r}")
            break
    unique = list({item.prompt: item for item in drawn}.values())
    try:
        faults += _scoring_faults(fam, unique)
    except SuiteError as error:
        faults.append(f"no suite takes its questions: {error}")
    guesses = tuple(best_guess([item for item in drawn if item.level == level]) for level in LEVELS)
    faults += [
        f"one constant answer gets {guess:.0%} of level {level}, more than {MAX_BEST_GUESS:.0%}"
        for level, guess in zip(LEVELS, guesses, strict=True)
        if guess > MAX_BEST_GUESS and items >= SCREEN_ITEMS
    ]
    return Screened(fam.name, len(unique), guesses, tuple(faults))


def best_guess(items: Sequence[Item]) -> float:
    """The share of the different questions among these, 0..1, that one answer gets right: the best of their own."""
    different = {item.prompt: item for item in items}.values()
    answers = Counter(item.answer for item in different)
    checked = [item.checks for item in different if item.checks]
    if not checked:
        return answers.most_common(1)[0][1] / len(different)
    return max(sum(fulfils(answer, checks) for checks in checked) for answer in answers) / len(different)


def draw(fam: Family, items: int) -> list[Item]:
    """The screen's draw: the same number of questions at every level, on surfaces at random."""
    if items < len(LEVELS):
        raise GeneratorError(f"a screen needs at least {len(LEVELS)} items")
    rng = Rng(_SEED)
    shares = [items // len(LEVELS) + (index < items % len(LEVELS)) for index in range(len(LEVELS))]
    return [item for level, share in zip(LEVELS, shares, strict=True) for item in fam.items(rng, share, level)]


def digest_of(items: Sequence[Item]) -> str:
    """SHA-256 over the items' lines."""
    return hashlib.sha256("\n".join(item.to_json() for item in items).encode()).hexdigest()


def digests_in_other_process(families: Sequence[str], items: int = SCREEN_ITEMS) -> dict[str, str]:
    """`digest_of` each family's draw, made by a fresh interpreter with another hash seed.

    A family that raises there has no entry.

    Raises:
        GeneratorError: When a generator ended the other process.
    """
    code = "from tiltyard_eval.screening import print_digests; import sys; print_digests(sys.argv[1], sys.argv[2:])"
    command = [sys.executable, "-c", code, str(items), *families]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise GeneratorError(
            f"a generator ended its process with status {done.returncode}: {done.stderr[-300:].strip()}"
        )
    return dict(line.split("\t") for line in done.stdout.splitlines() if "\t" in line)


def print_digests(items: str, families: Sequence[str]) -> None:
    """Print `family TAB digest` for each; the other half of `digests_in_other_process`."""
    from tiltyard_eval.generators import REGISTRY  # noqa: PLC0415  registers the families

    for name in families:
        try:
            print(f"{name}\t{digest_of(draw(REGISTRY[name], int(items)))}")  # noqa: T201  read by the other process
        except Exception as error:  # the parent finds its digest missing, and reports it
            print(f"{name} raises {type(error).__name__}", file=sys.stderr)  # noqa: T201


def _scoring_faults(fam: Family, items: Sequence[Item]) -> list[str]:
    gold = {item.prompt: item.answer for item in items}
    with tempfile.TemporaryDirectory(prefix="tiltyard-screen-") as folder:
        suite = Path(folder) / "suite"
        write_suite(suite, _recipe_of(fam, len(items)), {fam.name: list(items)}, {fam.name: fam.group}, commitment=None)
        own = _scores(suite, lambda prompt: " " + gold[prompt])
        wrong = [prompt for prompt, score in own.items() if score != 1.0]
        faults = [f"its own answer scores {own[prompt]:g}: {prompt!r} → {gold[prompt]!r}" for prompt in wrong[:1]]
        bank = (*JUNK, ECHO)
        junk_of = {prompt: bank[index % len(bank)] for index, prompt in enumerate(gold)}
        paid = _scores(suite, lambda prompt: prompt if junk_of[prompt] == ECHO else junk_of[prompt])
        bought = [(prompt, junk_of[prompt]) for prompt, score in paid.items() if score != 0.0]
    bought += [(item.prompt, junk) for item in items for junk in _bank_of(item) if _is_right(item, junk)]
    return faults + [f"pays for junk: {prompt!r} → {junk[:40]!r}" for prompt, junk in bought[:1]]


def _bank_of(item: Item) -> tuple[str, ...]:
    """All junk for one question: the bank, and what is left of its answer when only one word of several is written."""
    first, *rest = item.answer.split()
    return (*JUNK, item.prompt.partition("\n")[0], *([" ".join([first, *("." for _ in rest)])] if rest else []))


def _is_right(item: Item, text: str) -> bool:
    """What lm-eval would say: the filter of a built suite, then equality or the item's own checks."""
    found = re.search(ANSWER_PATTERN, text)
    answer = found[1] if found else NO_ANSWER
    return fulfils(answer, item.checks) if item.checks else answer == item.answer


def _scores(suite_folder: Path, answer: Callable[[str], str]) -> dict[str, float]:
    """Each prompt's score when `answer(prompt)` is what the server said."""

    def ask(questions: Sequence[AnyQuestion]) -> Mapping[str, Answer]:
        prompts = {question.key: question.prompt for question in questions if isinstance(question, Question)}
        return {key: Answer(answer(prompt), None, 0.0) for key, prompt in prompts.items()}

    return {item.prompt: item.score for item in evaluate_suite(load_suite(suite_folder), ask).items}


def _recipe_of(fam: Family, items: int) -> Recipe:
    task = TaskSpec(fam.name, fam.title, fam.name, 1.0, tuple((level, 1.0) for level in LEVELS), (), ())
    return Recipe(
        "screen", "Screen", "1", "open", "Questions for the screen.", items, 64, (task,), "sha256:" + "0" * 64
    )
