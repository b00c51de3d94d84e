"""The score of one entry on one suite: the weighted mean of its tasks, with intervals; plain, or normalised."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from tiltyard_eval.results import Score
from tiltyard_eval.stats.contrast import Contrasts, Sample, contrasts
from tiltyard_eval.stats.types import CONFIDENCE, Interval, Stratum, TaskScores, checked, shares, stack

_DIGITS = 9
MIN_HEADROOM = 0.02


def score_strata(strata: Sequence[Stratum], *, confidence: float = CONFIDENCE) -> tuple[Score, list[Score]]:
    """Score a run: weighted mean of task means, and each task's mean, all with intervals.

    Args:
        strata: One entry per task, in the suite's order; none may be empty, and some weight must be positive.
        confidence: Of the intervals.

    Returns:
        The total and one score per stratum, rounded to nine digits.

    Raises:
        ValueError: When there is nothing to score, or a score is not a number in 0..1.
    """
    weights = shares(stratum.weight for stratum in strata)
    tasks = stack([strata])
    total = contrasts(samples_of(tasks, weights), confidence=confidence)
    single = [contrasts([_sample(task, 1.0)], confidence=confidence) for task in tasks]
    # fsum, so that the value does not depend on the order in which items were summed.
    means = [math.fsum(stratum.scores) / len(stratum.scores) for stratum in strata]
    value = math.fsum(stratum.weight * mean for stratum, mean in zip(strata, means, strict=True))
    value /= math.fsum(stratum.weight for stratum in strata)
    return _rounded(value, total), [_rounded(mean, one) for mean, one in zip(means, single, strict=True)]


def score_entries(tasks: Sequence[TaskScores], *, confidence: float = CONFIDENCE) -> list[Interval]:
    """The totals that `score_strata` gives, of all entries at once.

    Raises:
        ValueError: When there is nothing to score, or a score is not a number in 0..1.
    """
    weights = shares(task.weight for task in tasks)
    found = contrasts(samples_of([checked(task) for task in tasks], weights), confidence=confidence)
    low, high = np.maximum(found.low, 0.0), np.minimum(found.high, 1.0)
    columns = [column.round(_DIGITS).tolist() for column in (found.value, low, high)]
    return [Interval(*row) for row in zip(*columns, strict=True)]


def normalised_score(
    entry: Sequence[Stratum],
    base: Sequence[Stratum],
    *,
    ceilings: Sequence[float] | None = None,
    confidence: float = CONFIDENCE,
) -> tuple[Interval, list[float]]:
    """Where an entry stands between the base model (0) and the ceiling (1), by task and in the weighted mean.

    A task counts (a − b) / (c − b), with a the entry's mean, b the base model's on the same items and c the ceiling.
    The result may be negative or, above the ceiling, more than one; nothing is clipped. The interval takes into account
    that the base model was measured as well: to first order the ratio ρ moves as ((aᵢ − (1 − ρ)·bᵢ) / (c − b)) does
    (delta method for a ratio, Cochran 1977, §2.11), item by item, so that what both get right or wrong together
    cancels.

    Args:
        entry, base: Their scores on the same items.
        ceilings: For each task the mean that counts as one; by default 1.0 for all.
        confidence: Of the interval.

    Raises:
        ValueError: When the two were not scored on the same items, or a task's ceiling is less than two points above
            the base model, so that noise would be divided by next to nothing.
    """
    tasks = stack([entry, base])
    tops = [1.0] * len(tasks) if ceilings is None else list(ceilings)
    if len(tops) != len(tasks):
        raise ValueError("ceilings must name one number for each task")
    ratios, samples = [], []
    for index, (task, weight, top) in enumerate(zip(tasks, shares(t.weight for t in tasks), tops, strict=True)):
        own, reference = task.scores.mean(axis=1)
        headroom = top - reference
        if not headroom >= MIN_HEADROOM:
            raise ValueError(
                f"task {index}: the ceiling {top} is not at least {MIN_HEADROOM} above the base model's "
                f"{reference:.3f}; leave the task out or raise its ceiling"
            )
        ratio = float((own - reference) / headroom)
        left = 1.0 - ratio
        values = (task.scores[0] - left * task.scores[1])[None, :]  # (1, items)
        ends = (min(0.0, -left), max(1.0, 1.0 - left))
        samples.append(Sample(values, weight / headroom, *ends, task.clusters))
        ratios.append(ratio)
    found = contrasts(samples, confidence=confidence)
    value = float(np.dot(shares(task.weight for task in tasks), ratios))
    half_widths = float(found.value[0] - found.low[0]), float(found.high[0] - found.value[0])
    return Interval(value, value - half_widths[0], value + half_widths[1]), ratios


def samples_of(tasks: Sequence[TaskScores], weights: Iterable[float]) -> list[Sample]:
    """Tasks as samples of a contrast, one batch row for each entry."""
    return [_sample(task, float(weight)) for task, weight in zip(tasks, weights, strict=True)]


def _sample(task: TaskScores, coefficient: float) -> Sample:
    return Sample(task.scores, coefficient, clusters=task.clusters)


def _rounded(value: float, found: Contrasts) -> Score:
    low, high = float(found.low[0]), float(found.high[0])
    return Score(
        value=round(value, _DIGITS),
        low=round(max(0.0, min(low, value)), _DIGITS),
        high=round(min(1.0, max(high, value)), _DIGITS),
    )
