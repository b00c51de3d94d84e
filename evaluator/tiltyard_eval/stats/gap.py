"""The overfit gap: what an entry loses from the open suite to the hidden one, and when that is more than honest.

A gap by itself proves nothing: one suite may be harder. What an honest model loses, the baselines show, which were
asked the same questions. So an entry is flagged when its gap exceeds that of *every* baseline by more than a margin,
and by more than noise. That is an intersection–union test (Berger 1982, Technometrics 24:295): the p-value is the
largest of those against the single baselines, and needs no correction for their number. Over the entries of a board the
p-values are corrected after Holm (1979, Scandinavian J. of Statistics 6:65), so that the level bounds the probability
that *any* honest entry of the board is flagged.

Twins are pairs of an open and a hidden item with the same skeleton and another surface. Difficulty then cancels pair by
pair, and memorising the open wording shows even without baselines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiltyard_eval.stats.contrast import Contrasts, Sample, contrasts
from tiltyard_eval.stats.paired import as_difference
from tiltyard_eval.stats.types import (
    CONFIDENCE,
    Difference,
    FloatArray,
    IntArray,
    Interval,
    Stratum,
    TaskScores,
    shares,
    stack,
)

MARGIN = 0.05
LEVEL = 0.05


@dataclass(frozen=True)
class OpenHidden:
    """The scores of one entry on the open and on the hidden suite."""

    open: Sequence[Stratum]
    hidden: Sequence[Stratum]


@dataclass(frozen=True)
class OverfitTest:
    """What the gap of one entry says.

    Attributes:
        gap: Open minus hidden, with its interval.
        excess: How much larger the gap is than that of the nearest baseline, with a one-baseline interval. The nearest
            is the one that speaks most for the entry.
        nearest: Index of that baseline.
        p_value: Of the hypothesis that the gap exceeds that of some baseline by no more than the margin; corrected for
            the number of entries tested together.
        flagged: Whether the p-value is at most the level.
    """

    gap: Interval
    excess: Difference
    nearest: int
    p_value: float
    flagged: bool


def gap(
    open_strata: Sequence[Stratum], hidden_strata: Sequence[Stratum], *, confidence: float = CONFIDENCE
) -> Interval:
    """Weighted mean of the open tasks minus that of the hidden tasks, with its interval.

    The two suites ask different questions, so their errors are independent.

    Raises:
        ValueError: When a suite has no items or no positive weight.
    """
    if not open_strata or not hidden_strata:
        raise ValueError("a gap needs items of both suites")
    samples = _open_minus_hidden(stack([open_strata]), stack([hidden_strata]), np.zeros(1, dtype=np.int64))
    found = contrasts(samples, confidence=confidence)
    return Interval(float(found.value[0]), float(found.low[0]), float(found.high[0]))


def overfit_tests(
    entries: Sequence[OpenHidden],
    baselines: Sequence[OpenHidden],
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
    confidence: float = CONFIDENCE,
) -> list[OverfitTest]:
    """Test the entries of a board for gaps that honest training does not explain.

    Args:
        entries: Those to test; all have answered the baselines' items.
        baselines: Models known to be honest, at least one; several that were trained differently are better.
        margin: How much more than every baseline an honest entry may lose, 0..1.
        level: Bound on the probability that any honest entry among `entries` is flagged.
        confidence: Of the intervals.

    Raises:
        ValueError: When there is no baseline, or entries and baselines were not asked the same items.
    """
    if not baselines:
        raise ValueError("the flag compares with baselines: give at least one")
    everybody = [*entries, *baselines]
    parts = stack([one.open for one in everybody]), stack([one.hidden for one in everybody])
    places = np.arange(len(everybody))
    return overfit_tests_of(
        *parts, places[: len(entries)], places[len(entries) :], margin=margin, level=level, confidence=confidence
    )


def overfit_tests_of(
    open_tasks: Sequence[TaskScores],
    hidden_tasks: Sequence[TaskScores],
    tested: IntArray,
    baselines: IntArray,
    *,
    margin: float = MARGIN,
    level: float = LEVEL,
    confidence: float = CONFIDENCE,
) -> list[OverfitTest]:
    """`overfit_tests` of a whole board at once.

    Args:
        open_tasks, hidden_tasks: With the scores of everybody.
        tested, baselines: Which rows are tested, and which are the baselines, at least one.
        margin, level, confidence: As there.

    Raises:
        ValueError: When a suite has no items or no positive weight.
    """
    if len(tested) == 0:
        return []
    against = [
        contrasts(_open_minus_hidden(open_tasks, hidden_tasks, tested, baseline), confidence=confidence)
        for baseline in baselines
    ]
    gaps = contrasts(_open_minus_hidden(open_tasks, hidden_tasks, tested), confidence=confidence)
    p_values = np.stack([found.p_above(margin) for found in against])  # (baselines, tested)
    nearest = p_values.argmax(axis=0)
    corrected = holm(p_values.max(axis=0))
    return [
        OverfitTest(
            Interval(float(gaps.value[row]), float(gaps.low[row]), float(gaps.high[row])),
            as_difference(_row(against[place], row)),
            int(place),
            p_value,
            p_value <= level,
        )
        for row, (place, p_value) in enumerate(zip(nearest, corrected, strict=True))
    ]


def _open_minus_hidden(
    open_tasks: Sequence[TaskScores], hidden_tasks: Sequence[TaskScores], rows: IntArray, less: int | None = None
) -> list[Sample]:
    """One contrast for each of these rows; less the same of another row, item by item, when one is named."""
    samples = []
    for sign, tasks in ((1.0, open_tasks), (-1.0, hidden_tasks)):
        for task, share in zip(tasks, sign * shares(task.weight for task in tasks), strict=True):
            values = task.scores[rows]
            if less is None:
                samples.append(Sample(values, float(share), clusters=task.clusters))
            else:
                samples.append(Sample(values - task.scores[less], float(share), -1.0, 1.0, task.clusters))
    return samples


def _row(found: Contrasts, index: int) -> Contrasts:
    names = ("value", "centre", "standard_error", "df", "error_df", "low", "high")
    return Contrasts(*(getattr(found, name)[index : index + 1] for name in names))


def holm(p_values: Sequence[float] | FloatArray) -> list[float]:
    """p-values corrected so that rejecting those at most α errs anywhere with probability at most α."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    stepped = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors))
    corrected = np.empty(len(p_values))
    corrected[order] = stepped
    return [float(value) for value in corrected]


def twin_gap(
    open_twins: Sequence[Stratum],
    hidden_twins: Sequence[Stratum],
    *,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Open minus hidden over paraphrase twins, pair by pair.

    Args:
        open_twins, hidden_twins: By task; the items at the same place are twins. `clusters` name skeletons that several
            pairs share.
        confidence: Of the interval.

    Raises:
        ValueError: When the two do not match pair by pair.
    """
    tasks = stack([open_twins, hidden_twins])
    samples = [
        Sample(_twin_values(task.scores), float(share), -1.0, 1.0, task.clusters)
        for task, share in zip(tasks, shares(task.weight for task in tasks), strict=True)
    ]
    return as_difference(contrasts(samples, confidence=confidence))


def _twin_values(scores: FloatArray) -> FloatArray:
    return np.asarray(scores[:1] - scores[1:])
