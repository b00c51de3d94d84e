"""Intervals for weighted sums of task means: the adjusted Wald interval, for bounded scores and for clusters.

Every interval of a score, a difference or a gap is one of a *contrast* Σ wₜ·μₜ, where μₜ is the mean that the task's
generator would give with endlessly many items. The plain interval, estimate ± 1.96 standard errors, and the percentile
bootstrap both collapse to a point when all items of a sample agree, and both are too short with few items. Therefore
pseudo-items are put at both ends of the range before mean and variance are taken:

- one proportion: two at each end (Agresti and Coull 1998, The American Statistician 52:119);
- a linear function of m independent proportions: 2/m at each end of each sample (Price and Bonett 2004, Computational
  Statistics & Data Analysis 45:449; for m = 2 Agresti and Caffo 2000, The American Statistician 54:280);
- a paired difference: one pair each way (Bonett and Price 2012, J. Educational and Behavioral Statistics 37:479).

Here these are one rule: with values in a range of width R, and m samples, each sample gets 2/(R·m) pseudo-items at
either end. Samples of unequal weight count as (Σ|w·R|)² / Σ(w·R)² equal ones (Kish's effective number), since a sample
that decides the contrast alone needs the pseudo-items that it would get alone. For scores that are not 0 or 1 the
variance is that of the augmented sample.

Clusters: the variance is that of a ratio estimator over clusters (Cochran 1977, Sampling Techniques, 3rd ed., §6.3; the
cluster-robust standard error of Miller 2024, arXiv 2411.00640), a pseudo-item weighs as many items as the design effect
says that a cluster repeats, and the quantile is Student's with Satterthwaite's degrees of freedom (1946, Biometrics
2:110), because few clusters tell little of their variance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from tiltyard_eval.stats.types import CONFIDENCE, FloatArray, IntArray

_SURE = 1e9  # degrees of freedom of a variance that is a bound, not an estimate
PSEUDO_ITEMS = 4.0  # of one sample with a range of width 1; z² = 3.84 of the score interval, rounded as the sources do


@dataclass(frozen=True)
class Sample:
    """One independent sample of items, for one or for many (B) contrasts at once.

    Attributes:
        values: Shape (B, items).
        coefficient: What the sample's mean is multiplied with; negative for what is subtracted.
        low: The least that a value can be.
        high: The most that a value can be.
        clusters: Shape (items,), or None when every item is a cluster of its own.
    """

    values: FloatArray
    coefficient: float
    low: float = 0.0
    high: float = 1.0
    clusters: IntArray | None = None


@dataclass(frozen=True)
class Contrasts:
    """Estimates with intervals, every array of shape (B,).

    Attributes:
        value: Σ coefficient · mean, without pseudo-items.
        centre: The same with pseudo-items; what `standard_error` and `df` belong to.
        standard_error: Of `centre`, always positive.
        df: Degrees of freedom of interval and p-values; infinite where no sample is clustered, because there the
            pseudo-items are allowance enough.
        error_df: Degrees of freedom that `standard_error` really has, for far tails.
        low: Lower end of the interval; never above `value`.
        high: Upper end of the interval; never below `value`.
    """

    value: FloatArray
    centre: FloatArray
    standard_error: FloatArray
    df: FloatArray
    error_df: FloatArray
    low: FloatArray
    high: FloatArray

    def p_above(self, threshold: float) -> FloatArray:
        """One-sided p-value of the hypothesis that the contrast is at most `threshold`, shape (B,)."""
        return np.asarray(stdtr(self.df, (threshold - self.centre) / self.standard_error), dtype=np.float64)

    def p_two_sided(self) -> FloatArray:
        """Two-sided p-value of the hypothesis that the contrast is zero, shape (B,)."""
        return np.asarray(2.0 * stdtr(self.df, -np.abs(self.centre) / self.standard_error), dtype=np.float64)


@dataclass(frozen=True)
class Summary:
    """What the contrasts need of one sample, for B of them at once.

    Attributes:
        coefficient, low, high: As in `Sample`.
        sizes: Items of each cluster, shape (G,).
        mean: Of the items, shape (B,).
        squares: Squared deviations of the cluster sums from what their sizes make one expect, summed, shape (B,).
        variance: Of the items, shape (B,); zeros where every item is a cluster of its own, since nothing asks for it.
    """

    coefficient: float
    low: float
    high: float
    sizes: FloatArray
    mean: FloatArray
    squares: FloatArray
    variance: FloatArray

    @property
    def items(self) -> float:
        return float(self.sizes.sum())

    @property
    def is_clustered(self) -> bool:
        return bool(len(self.sizes) < self.items)


def contrasts(samples: Sequence[Sample], *, confidence: float = CONFIDENCE) -> Contrasts:
    """Estimate B contrasts of independent samples.

    A sample with a single cluster shows nothing of its variance; it gets the largest that its range allows.

    Args:
        samples: At least one with a coefficient other than zero; those with zero are left out. None may be empty.
        confidence: Of the two-sided intervals, above 0 and below 1.

    Raises:
        ValueError: When there is nothing to estimate, or a sample is empty.
    """
    return contrasts_of([summarise(sample) for sample in samples if sample.coefficient != 0.0], confidence=confidence)


def contrasts_of(used: Sequence[Summary], *, confidence: float = CONFIDENCE) -> Contrasts:
    """`contrasts` of samples that are summed up already, none of which has the coefficient zero."""
    if not 0.0 < confidence < 1.0:
        raise ValueError("a confidence is a number above 0 and below 1, such as 0.95")
    if not used:
        raise ValueError("every task needs items, and the weights must not all be zero")
    design_effects = _design_effects(used)
    effective = _effective_number(used)
    batch = len(used[0].mean)
    value, centre, variance, squares = (np.zeros(batch) for _ in range(4))
    for sample, design_effect in zip(used, design_effects, strict=True):
        weight = sample.coefficient
        mean, mean_variance, mean_df = _moments(sample, design_effect, effective)
        value += weight * sample.mean
        centre += weight * mean
        variance += weight**2 * mean_variance
        squares += (weight**2 * mean_variance) ** 2 / mean_df
    error_df = variance**2 / squares
    df = error_df if any(sample.is_clustered for sample in used) else np.full(batch, np.inf)
    standard_error = np.sqrt(variance)
    half_width = stdtrit(df, 0.5 + confidence / 2.0) * standard_error
    least, most = _range_of(used)
    low = np.minimum(np.maximum(centre - half_width, least), value)
    high = np.maximum(np.minimum(centre + half_width, most), value)
    return Contrasts(value, centre, standard_error, df, error_df, low, high)


def summarise(sample: Sample) -> Summary:
    """Sum up one sample; ValueError when it has no items."""
    values = sample.values
    sums, sizes = cluster_sums(values, sample.clusters)
    mean = values.mean(axis=1)
    squares = np.square(sums - sizes * mean[:, None]).sum(axis=1)
    is_clustered = len(sizes) < values.shape[1]
    variance = values.var(axis=1, ddof=1) if is_clustered else np.zeros(len(mean))
    return Summary(sample.coefficient, sample.low, sample.high, sizes, mean, squares, variance)


def cluster_sums(values: FloatArray, clusters: IntArray | None) -> tuple[FloatArray, FloatArray]:
    """Sums of values (B, items) over their clusters, shape (B, G), and the clusters' sizes, shape (G,).

    Raises:
        ValueError: When there are no items.
    """
    if values.shape[1] == 0:
        raise ValueError("every task needs items")
    if clusters is None:
        return values, np.ones(values.shape[1])
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=clusters[order[0]] - 1))  # (G,)
    sums = np.add.reduceat(values[:, order], starts, axis=1)
    return sums, np.diff(starts, append=len(clusters)).astype(np.float64)


def _design_effects(samples: Sequence[Summary]) -> list[FloatArray]:
    """For each sample, how many times larger its clusters make the variance, shape (B,).

    The ratio is pooled over the samples, since that of one sample with few clusters is noise. Where no item differs
    from another in any sample, clusters are taken to repeat themselves entirely.
    """
    batch = len(samples[0].mean)
    clustered, plain = np.zeros(batch), np.zeros(batch)
    for sample in samples:
        if sample.is_clustered and len(sample.sizes) > 1:
            weight = sample.coefficient**2
            clustered += weight * sample.squares * _bessel(len(sample.sizes)) / sample.items**2
            plain += weight * sample.variance / sample.items
    ratio = np.divide(clustered, plain, out=np.full(batch, np.inf), where=plain > 0.0)
    return [
        np.clip(ratio, 1.0, float((s.sizes**2).sum() / s.items)) if s.is_clustered else np.ones(batch) for s in samples
    ]


def _bessel(clusters: int) -> float:
    return clusters / (clusters - 1)


def _effective_number(samples: Sequence[Summary]) -> float:
    """As how many samples of equal weight these count, 1 to their number."""
    pulls = [abs(s.coefficient) * (s.high - s.low) for s in samples]
    return float(sum(pulls) ** 2 / sum(pull**2 for pull in pulls))


def _moments(sample: Summary, design_effect: FloatArray, samples: float) -> tuple[FloatArray, FloatArray, float]:
    """Mean with pseudo-items and the variance of it, both (B,), and the degrees of freedom."""
    low, high = sample.low, sample.high
    count = PSEUDO_ITEMS / ((high - low) * samples)  # pseudo-items, half of them at either end
    weight = count * design_effect  # (B,), in items
    total = sample.items + weight
    mean = (sample.items * sample.mean + weight * (low + high) / 2.0) / total
    clusters = len(sample.sizes)
    if clusters == 1:
        return mean, np.full(mean.shape, ((high - low) / 2.0) ** 2), _SURE
    # The pseudo-items make up for the degree of freedom that the mean costs, as far as there are any.
    correction = (clusters - min(1.0, count)) / (clusters - 1)
    squares = sample.squares * correction
    squares += (sample.sizes**2).sum() * (sample.mean - mean) ** 2
    squares += count / 2.0 * design_effect**2 * ((low - mean) ** 2 + (high - mean) ** 2)
    return mean, squares / total**2, clusters - 1 + count


def _range_of(samples: Sequence[Summary]) -> tuple[float, float]:
    """The least and the most that the contrast can be."""
    ends = [(s.coefficient * s.low, s.coefficient * s.high) for s in samples]
    return sum(min(pair) for pair in ends), sum(max(pair) for pair in ends)
