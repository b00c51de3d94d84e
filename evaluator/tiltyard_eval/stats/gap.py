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
from tiltyard_eval.stats.scores import samples_of
from tiltyard_eval.stats.types import CONFIDENCE, Difference, FloatArray, Interval, Stratum, shares, stack

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
    found = contrasts(_open_minus_hidden(open_strata, hidden_strata), confidence=confidence)
    return Interval(float(found.value[0]), float(found.low[0]), float(found.high[0]))


def _open_minus_hidden(open_strata: Sequence[Stratum], hidden_strata: Sequence[Stratum]) -> list[Sample]:
    samples = []
    for sign, strata in ((1.0, open_strata), (-1.0, hidden_strata)):
        tasks = stack([strata]) if strata else []
        samples += samples_of(tasks, sign * shares(stratum.weight for stratum in strata))
    return samples


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
    raw = [_against(entry, baselines, margin, confidence) for entry in entries]
    corrected = holm([p_value for _, _, p_value in raw])
    tests = []
    for entry, (excess, nearest, _), p_value in zip(entries, raw, corrected, strict=True):
        found = gap(entry.open, entry.hidden, confidence=confidence)
        tests.append(OverfitTest(found, excess, nearest, p_value, p_value <= level))
    return tests


def _against(
    entry: OpenHidden, baselines: Sequence[OpenHidden], margin: float, confidence: float
) -> tuple[Difference, int, float]:
    """Excess over the baseline that speaks most for the entry, its index, and the one-sided p-value against it."""
    samples: list[Sample] = []
    for sign, mine, theirs in (
        (1.0, entry.open, [baseline.open for baseline in baselines]),
        (-1.0, entry.hidden, [baseline.hidden for baseline in baselines]),
    ):
        tasks = stack([mine, *theirs])
        for task, share in zip(tasks, shares(task.weight for task in tasks), strict=True):
            values = task.scores[:1] - task.scores[1:]  # (baselines, items)
            samples.append(Sample(values, sign * float(share), -1.0, 1.0, task.clusters))
    found = contrasts(samples, confidence=confidence)
    p_values = found.p_above(margin)
    nearest = int(np.argmax(p_values))
    return as_difference(_row(found, nearest)), nearest, float(p_values[nearest])


def _row(found: Contrasts, index: int) -> Contrasts:
    names = ("value", "centre", "standard_error", "df", "error_df", "low", "high")
    return Contrasts(*(getattr(found, name)[index : index + 1] for name in names))


def holm(p_values: Sequence[float]) -> list[float]:
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
