"""The twin gap: what an entry loses when questions that it could know come back in other words.

A hidden suite holds *paraphrase twins* of open items: the same skeleton at the same level, another frame and another
phrasing. Who has learned a skill answers both; who has learned the published text answers the open one. Difficulty
cancels pair by pair, so a few dozen pairs say more than the whole gap between the suites.

What does not cancel is the surface: one wording may be easier for a model than another. Baselines that are known to be
honest show how much; an entry is flagged when its twin gap exceeds a margin by more than noise, and exceeds that of
*every* baseline by the margin as well (an intersection–union test, as in `stats.gap`).

    links = twin_links(load_suite(hidden_folder))
    found = twin_gap(TwinScores(open_scores, hidden_scores), links, weights)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tiltyard_eval.config import RESULT_FILE, SAMPLES_FILE
from tiltyard_eval.report import read_samples
from tiltyard_eval.results import load_result
from tiltyard_eval.stats import CONFIDENCE, Difference, Stratum, TaskScores, stack
from tiltyard_eval.stats.contrast import Contrasts, Sample, contrasts
from tiltyard_eval.stats.gap import LEVEL, MARGIN
from tiltyard_eval.stats.paired import as_difference
from tiltyard_eval.stats.types import shares
from tiltyard_eval.suite import Suite

ItemKey = tuple[str, int]
"""Name of a task and index of one of its items, from 0."""

Scores = Mapping[str, Sequence[float]]
"""For each task of a suite the scores of its items in their order, each in 0..1."""

MIN_PAIRS: Final = 2


class TwinError(ValueError):
    """There is no twin gap to compute; the message says why and quotes no item."""


@dataclass(frozen=True)
class TwinScores:
    """What one entry scored on the open suite and on the hidden one."""

    open: Scores
    hidden: Scores


@dataclass(frozen=True)
class TaskTwins:
    """The pairs of one task of the hidden suite, with the mean scores of their open and their hidden items."""

    name: str
    pairs: int
    open: float
    hidden: float


@dataclass(frozen=True)
class TwinGap:
    """What an entry lost from open items to their hidden twins.

    Attributes:
        gap: Open minus hidden, −1..1, weighted by task, with its 95 % interval; its p-value is two-sided, of no gap.
        open, hidden: The two weighted means, 0..1.
        pairs: How many pairs there are.
        lost: Pairs whose open item scored more than its twin.
        gained: Pairs whose twin scored more.
        tasks: The same by task of the hidden suite.
        excess: How much larger the gap is than that of the baseline that speaks most for the entry; None without
            baselines.
        nearest: Index of that baseline, or None.
        p_value: One-sided, of the hypothesis that the gap, or its excess over some baseline, is at most the margin.
        flagged: Whether that p-value is at most the level. Over several entries tested at once, correct the p-values
            with `stats.gap.holm`.
    """

    gap: Difference
    open: float
    hidden: float
    pairs: int
    lost: int
    gained: int
    tasks: tuple[TaskTwins, ...]
    excess: Difference | None
    nearest: int | None
    p_value: float
    flagged: bool


def twin_links(hidden: Suite) -> dict[ItemKey, ItemKey]:
    """For each twin of a hidden suite the open item whose twin it is; empty when the suite has none."""
    return {
        (task.name, index): item.twin
        for task in hidden.tasks
        for index, item in enumerate(task.items)
        if item.twin is not None
    }


def twin_gap(
    entry: TwinScores,
    links: Mapping[ItemKey, ItemKey],
    weights: Mapping[str, float],
    *,
    baselines: Sequence[TwinScores] = (),
    margin: float = MARGIN,
    level: float = LEVEL,
    confidence: float = CONFIDENCE,
) -> TwinGap:
    """Test whether an entry knows open items better than their hidden twins.

    Args:
        entry: Its item scores.
        links: From `twin_links`: hidden item to open item.
        weights: Of the hidden suite's tasks; those of tasks without twins are not needed.
        baselines: Entries known to be honest, scored on the same suites; they show what the change of words costs.
        margin: A gap that honest training may leave, 0..1.
        level: Of the flag.
        confidence: Of the intervals.

    Raises:
        TwinError: There are fewer than two pairs, or a score of a linked item is missing.
        ValueError: A score is not a number in 0..1, or no weight is positive.
    """
    by_task: dict[str, list[tuple[ItemKey, ItemKey]]] = {}
    for hidden, opened in sorted(links.items()):
        by_task.setdefault(hidden[0], []).append((hidden, opened))
    if len(links) < MIN_PAIRS:
        raise TwinError("the hidden suite has no twins of open items; build it from a recipe with `twins`")
    everyone = [_strata(scores, by_task, weights) for scores in (entry, *baselines)]
    tasks = stack([strata for both in everyone for strata in both])  # rows: open and hidden of each entry in turn
    own = _contrast(tasks, None, confidence)
    p_value = float(own.p_above(margin)[0])
    excess, nearest = None, None
    for index in range(len(baselines)):
        found = _contrast(tasks, index + 1, confidence)
        above = float(found.p_above(margin)[0])
        if nearest is None or above > nearest[1]:
            excess, nearest = as_difference(found), (index, above)
    if nearest is not None:
        p_value = max(p_value, nearest[1])
    changes = np.concatenate([task.scores[0] - task.scores[1] for task in tasks])
    pulls = shares(task.weight for task in tasks)
    means = np.array([task.scores[:2].mean(axis=1) for task in tasks])  # (tasks, 2)
    return TwinGap(
        gap=as_difference(own),
        open=float(pulls @ means[:, 0]),
        hidden=float(pulls @ means[:, 1]),
        pairs=len(changes),
        lost=int((changes > 0).sum()),
        gained=int((changes < 0).sum()),
        tasks=tuple(
            TaskTwins(name, task.scores.shape[1], float(opened), float(hidden))
            for name, task, (opened, hidden) in zip(by_task, tasks, means, strict=True)
        ),
        excess=excess,
        nearest=None if nearest is None else nearest[0],
        p_value=p_value,
        flagged=p_value <= level,
    )


def twin_gap_of_folders(
    opened: Path, hidden: Path, *, baselines: Sequence[tuple[Path, Path]] = (), confidence: float = CONFIDENCE
) -> TwinGap:
    """The twin gap of what `run --out` wrote for an open and a hidden suite.

    Args:
        opened, hidden: The two folders.
        baselines: Such pairs of folders of entries known to be honest.
        confidence: Of the intervals.

    Raises:
        TwinError: The folders are not scored runs on an open suite and on twins of it, with all their samples.
        ResultError, OSError: A folder holds no valid result.
    """
    first, second = _read_run(opened), _read_run(hidden)
    links = _links(first, second)
    others = []
    for one, other in baselines:
        both = _read_run(one), _read_run(other)
        for mine, theirs in zip((first, second), both, strict=True):
            if mine.suite_sha256 != theirs.suite_sha256:
                raise TwinError(f"{theirs.folder} is not a run on the suite of {mine.folder}")
        others.append(TwinScores(both[0].scores, both[1].scores))
    entry = TwinScores(first.scores, second.scores)
    return twin_gap(entry, links, second.weights, baselines=others, confidence=confidence)


@dataclass(frozen=True)
class _Run:
    folder: str
    suite_sha256: str
    weights: Mapping[str, float]
    scores: Scores
    clusters: Mapping[ItemKey, str]
    twins: Mapping[ItemKey, ItemKey]


def _read_run(folder: Path) -> _Run:
    result = load_result(folder / RESULT_FILE)
    if result.score is None or result.suite is None:
        raise TwinError(f"{folder.name} has no score: only scored runs have a twin gap")
    scores: dict[str, list[float]] = {task.name: [math.nan] * task.items for task in result.tasks}
    clusters: dict[ItemKey, str] = {}
    twins: dict[ItemKey, ItemKey] = {}
    for row in read_samples(folder / SAMPLES_FILE):
        try:
            key = (str(row["task"]), int(row["index"]))
            if key[1] < 0 or not 0 <= float(row["score"]) <= 1:
                raise ValueError
            scores[key[0]][key[1]] = float(row["score"])
            if row.get("cluster") is not None:
                clusters[key] = str(row["cluster"])
            if row.get("twin") is not None:
                twins[key] = (str(row["twin"]["task"]), int(row["twin"]["index"]))
        except (KeyError, IndexError, TypeError, ValueError, OverflowError):
            raise TwinError(f"{folder.name}/{SAMPLES_FILE}: a sample is not what the evaluator writes") from None
    if any(math.isnan(score) for task in scores.values() for score in task):
        raise TwinError(f"{folder.name}/{SAMPLES_FILE} does not hold every item of the result")
    weights = {task.name: task.weight for task in result.tasks}
    return _Run(folder.name, result.suite.sha256, weights, scores, clusters, twins)


def _links(opened: _Run, hidden: _Run) -> Mapping[ItemKey, ItemKey]:
    """The hidden run's links, each of which must lead to an open item of the same skeleton."""
    for twin, item in hidden.twins.items():
        if opened.clusters.get(item) is None or opened.clusters[item] != hidden.clusters.get(twin):
            raise TwinError(f"{opened.folder} is not a run on the open suite whose twins {hidden.folder} has answered")
    return hidden.twins


def _contrast(tasks: Sequence[TaskScores], baseline: int | None, confidence: float) -> Contrasts:
    """Open minus hidden of the first entry, or how much that is more than that of entry number `baseline`."""
    samples = []
    for task, pull in zip(tasks, shares(task.weight for task in tasks), strict=True):
        values = task.scores[0::2] - task.scores[1::2]  # (entries, pairs)
        mine, end = values[:1], 1.0
        if baseline is not None:
            mine, end = mine - values[baseline : baseline + 1], 2.0
        samples.append(Sample(mine, float(pull), -end, end, task.clusters))
    return contrasts(samples, confidence=confidence)


def _strata(
    scores: TwinScores, by_task: Mapping[str, Sequence[tuple[ItemKey, ItemKey]]], weights: Mapping[str, float]
) -> tuple[list[Stratum], list[Stratum]]:
    """Open and hidden scores of the pairs, by task of the hidden suite."""
    opened, hidden = [], []
    for name, pairs in by_task.items():
        if name not in weights:
            raise TwinError(f"the weight of task {name!r} is missing")
        # Two hidden items of one open item share it, and so are one cluster.
        clusters = [f"{task}/{index}" for _, (task, index) in pairs]
        opened.append(Stratum([_score(scores.open, item) for _, item in pairs], weights[name], clusters))
        hidden.append(Stratum([_score(scores.hidden, item) for item, _ in pairs], weights[name], clusters))
    return opened, hidden


def _score(scores: Scores, item: ItemKey) -> float:
    task, index = item
    try:
        return scores[task][index]
    except (KeyError, IndexError):
        raise TwinError(f"there is no score for item {index} of task {task!r}") from None
