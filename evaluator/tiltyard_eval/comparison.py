"""Two results on one suite, item by item: which is better, how sure that is, and which items make the difference.

Every figure is computed from the samples. What result.json says beside them is checked against them, never shown: a
file that claims another score than its samples give is refused.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tiltyard_eval.config import RESULT_FILE, SAMPLES_FILE
from tiltyard_eval.pieces.text import visible
from tiltyard_eval.results import Result, ResultError, SuiteRef, load_result
from tiltyard_eval.sample_rows import SampleError, SampleRow, disagreements, read_rows, weighted_mean
from tiltyard_eval.stats import Difference, Stratum
from tiltyard_eval.stats.paired import paired_difference

_IDENTITY_WORDS: Final = {
    "evaluator_version": "evaluator version",
    "lm_eval_version": "lm-eval version",
    "seed": "order of the questions",
    "adapter": "wire protocol",
    "execution_mode": "execution mode",
    "generation": "generation settings",
}


class ComparisonError(ValueError):
    """The two results cannot be compared; the message says why."""


@dataclass(frozen=True)
class Pair:
    """One item with both answers; scores in 0..1."""

    task: str
    index: int
    prompt: str
    expected: str
    answer_a: str
    answer_b: str
    score_a: float
    score_b: float
    cluster: str | None = None

    @property
    def change(self) -> float:
        """B's score minus A's."""
        return self.score_b - self.score_a


@dataclass(frozen=True)
class TaskPairs:
    """The scores of both on the items of one task, each in 0..1 and in the same order.

    `clusters` labels the items, the same for those of one skeleton; None when no two items share one.
    """

    name: str
    title: str
    weight: float
    scores_a: Sequence[float]
    scores_b: Sequence[float]
    clusters: Sequence[str] | None = None


@dataclass(frozen=True)
class TaskComparison:
    """One task: both mean scores, and B − A with its interval."""

    name: str
    title: str
    score_a: float
    score_b: float
    difference: Difference


@dataclass(frozen=True)
class Summary:
    """B against A in numbers; both scores are weighted means over the tasks, in 0..1."""

    score_a: float
    score_b: float
    difference: Difference
    tasks: tuple[TaskComparison, ...]
    items: int
    better: int
    worse: int


@dataclass(frozen=True)
class Comparison:
    """Everything about B against A. `flipped` holds the items with unequal scores, A's losses first.

    `different_answers` counts items whose answers differ as text. `unlike` says in words what else differs between the
    runs, so that the difference may not be the entries' alone.
    """

    suite: SuiteRef
    summary: Summary
    different_answers: int
    flipped: tuple[Pair, ...]
    unlike: tuple[str, ...]


def compare_folders(a: Path, b: Path) -> Comparison:
    """Compare what two runs wrote.

    Raises:
        ComparisonError: They are not two scored results on the same suite with all their samples.
        OSError: A file cannot be read.
    """
    (result_a, rows_a), (result_b, rows_b) = _read(a, "A"), _read(b, "B")
    return compare(result_a, rows_a, result_b, rows_b)


def _read(folder: Path, name: str) -> tuple[Result, list[SampleRow]]:
    try:
        return load_result(folder / RESULT_FILE), list(read_rows(folder / SAMPLES_FILE))
    except (ResultError, SampleError) as error:
        raise ComparisonError(f"{name}, {folder}: {error}") from None


def compare(a: Result, rows_a: Iterable[SampleRow], b: Result, rows_b: Iterable[SampleRow]) -> Comparison:
    """Pair the samples, by task and index, and test B − A; see `compare_folders`."""
    items_a, items_b = _by_item(rows_a, "A"), _by_item(rows_b, "B")
    suite = _check_comparable(a, items_a, b, items_b)
    pairs = [_pair(row, items_b[key]) for key, row in items_a.items()]
    of_task: dict[str, list[Pair]] = {task.name: [] for task in a.tasks}
    for pair in pairs:
        of_task[pair.task].append(pair)
    summary = summarise(
        [
            TaskPairs(
                task.name,
                task.title,
                task.weight,
                [one.score_a for one in own],
                [one.score_b for one in own],
                _clusters(own),
            )
            for task in a.tasks
            for own in (of_task[task.name],)
        ]
    )
    return Comparison(
        suite=suite,
        summary=summary,
        different_answers=sum(pair.answer_a != pair.answer_b for pair in pairs),
        flipped=tuple(sorted((pair for pair in pairs if pair.change), key=lambda pair: pair.change)),
        unlike=unlike(a.identity, b.identity),
    )


def summarise(tasks: Sequence[TaskPairs]) -> Summary:
    """The paired test over all tasks and in each; raises ValueError when nothing has weight or a task has no item."""
    first = [Stratum(task.scores_a, task.weight, task.clusters) for task in tasks]
    second = [Stratum(task.scores_b, task.weight, task.clusters) for task in tasks]
    compared = tuple(
        TaskComparison(task.name, task.title, _mean(task.scores_a), _mean(task.scores_b), _difference(task))
        for task in tasks
    )
    changes = [b - a for task in tasks for a, b in zip(task.scores_a, task.scores_b, strict=True)]
    return Summary(
        score_a=weighted_mean([(_mean(task.scores_a), task.weight) for task in tasks]) or 0.0,
        score_b=weighted_mean([(_mean(task.scores_b), task.weight) for task in tasks]) or 0.0,
        difference=paired_difference(second, first),
        tasks=compared,
        items=len(changes),
        better=sum(change > 0 for change in changes),
        worse=sum(change < 0 for change in changes),
    )


def unlike(a: Mapping[str, object], b: Mapping[str, object]) -> tuple[str, ...]:
    """What differs between two identities beside the submission, in words."""
    return tuple(words for name, words in _IDENTITY_WORDS.items() if a.get(name) != b.get(name))


def _difference(task: TaskPairs) -> Difference:
    return paired_difference([Stratum(task.scores_b, 1.0, task.clusters)], [Stratum(task.scores_a, 1.0, task.clusters)])


def _clusters(pairs: Sequence[Pair]) -> list[str] | None:
    labels = [f"cluster {pair.cluster}" if pair.cluster is not None else f"item {pair.index}" for pair in pairs]
    return labels if len(set(labels)) < len(labels) else None


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


_Items = Mapping[tuple[str, int], SampleRow]


def _check_comparable(a: Result, rows_a: _Items, b: Result, rows_b: _Items) -> SuiteRef:
    for name, result in (("A", a), ("B", b)):
        if result.score is None or result.suite is None:
            raise ComparisonError(f"{name} has no score: only scored runs can be compared")
    assert a.suite is not None  # noqa: S101  checked above
    assert b.suite is not None  # noqa: S101  checked above
    if a.suite.sha256 != b.suite.sha256:
        raise ComparisonError(
            f"A answered {_shown(a.suite)} and B {_shown(b.suite)}, which are not the same suite: evaluate both on one"
            " suite"
        )
    if [(task.name, task.weight, task.items) for task in a.tasks] != [
        (task.name, task.weight, task.items) for task in b.tasks
    ]:
        raise ComparisonError("A and B name one suite, but other tasks, weights or numbers of items")
    for name, result, rows in (("A", a, rows_a), ("B", b, rows_b)):
        _check_samples(name, result, rows)
    if rows_a.keys() != rows_b.keys():
        raise ComparisonError("A and B hold samples of different items")
    return a.suite


def _check_samples(name: str, result: Result, rows: _Items) -> None:
    expected = sum(task.items for task in result.tasks)
    if len(rows) != expected:
        raise ComparisonError(f"{name} has {len(rows)} samples of {expected}: its {SAMPLES_FILE} is not complete")
    found = Counter(task for task, _ in rows)
    for task in result.tasks:
        if not found[task.name] == task.items > 0:
            raise ComparisonError(f"{name} has {found[task.name]} samples of task {task.name!r}, not {task.items}")
    if said := disagreements(result, rows.values()):
        raise ComparisonError(
            f"{name}'s {RESULT_FILE} and {SAMPLES_FILE} disagree, so one of them was changed: {said[0]}"
        )


def _shown(suite: SuiteRef) -> str:
    return visible(f"{suite.name} version {suite.version}")


def _by_item(rows: Iterable[SampleRow], name: str) -> dict[tuple[str, int], SampleRow]:
    by_item: dict[tuple[str, int], SampleRow] = {}
    for row in rows:
        key = (row.task, row.index)
        if key in by_item:
            raise ComparisonError(f"{name} has two samples of item {row.index} of {row.task!r}")
        by_item[key] = row
    return by_item


def _pair(a: SampleRow, b: SampleRow) -> Pair:
    if a.prompt != b.prompt or a.expected != b.expected:
        raise ComparisonError(f"item {a.index} of {a.task} is not the same question in A and B")
    cluster = a.cluster if a.cluster is not None else b.cluster  # the first results do not name them
    return Pair(a.task, a.index, a.prompt, a.expected, a.answer, b.answer, a.score, b.score, cluster)
