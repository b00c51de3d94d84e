"""How long answers took: a histogram and the usual quantiles."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from tiltyard_eval.pieces.text import count, seconds
from tiltyard_eval.results import LatencyHistogram, Timing

_WIDTH: Final = 1000.0
_HEIGHT: Final = 160.0
_BARS: Final = 40
_LABELS: Final = 6


def histogram_of(latencies_s: Iterable[float]) -> LatencyHistogram | None:
    """The latencies in bins of equal ratio; None without any. For results from before the evaluator counted them."""
    values = [value for value in latencies_s if math.isfinite(value) and value > 0]
    if not values:
        return None
    low, high = min(values), max(values) * 1.0001  # the largest belongs to the last bin
    ratio = (high / low) ** (1 / _BARS)
    edges = (*(low * ratio**step for step in range(_BARS)), high)
    counts = [0] * _BARS
    for value in values:
        counts[min(_BARS - 1, int(math.log(value / low) / math.log(ratio)))] += 1
    return LatencyHistogram(edges, tuple(counts))


def latency_figure(timing: Timing, histogram: LatencyHistogram | None, unit: str) -> str:
    """The quantiles that are known, and the histogram where there is one; nothing without either.

    `unit` names in the plural what the histogram counts, such as "requests".
    """
    quantiles = [
        ("Median", timing.latency_p50_s),
        ("90 %", timing.latency_p90_s),
        ("95 %", timing.latency_p95_s),
        ("99 %", timing.latency_p99_s),
        ("Longest", timing.latency_max_s),
    ]
    listed = "".join(
        f"<div><dt>{name}</dt><dd>{seconds(value)}</dd></div>" for name, value in quantiles if value is not None
    )
    facts = f'<dl class="figures">{listed}</dl>' if listed else ""
    return facts + (_drawing(histogram, unit) if histogram is not None and any(histogram.counts) else "")


def _drawing(histogram: LatencyHistogram, unit: str) -> str:
    edges, counts = _trimmed(histogram)
    most, step = max(counts), _WIDTH / len(counts)
    bars = "".join(
        f'<rect x="{index * step + 1:.1f}" y="{_HEIGHT - height:.1f}" width="{step - 2:.1f}" height="{height:.1f}">'
        f"<title>{seconds(edges[index])} to {seconds(edges[index + 1])}: {count(number)}</title></rect>"
        for index, number in enumerate(counts)
        if (height := max(2.0, _HEIGHT * number / most) if number else 0.0)
    )
    fullest = counts.index(most)
    label = (
        f"{count(sum(counts))} {unit} from {seconds(edges[0])} to {seconds(edges[-1])}; most, {count(most)}, took"
        f" {seconds(edges[fullest])} to {seconds(edges[fullest + 1])}"
    )
    return (
        f'<figure class="histogram"><svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none" role="img"'
        f' aria-label="{label}">{bars}</svg>{_axis(edges)}'
        f"<figcaption>How long {unit} took; the scale widens to the right.</figcaption></figure>"
    )


def _trimmed(histogram: LatencyHistogram) -> tuple[Sequence[float], Sequence[int]]:
    """Without the empty bins on both sides."""
    filled = [index for index, number in enumerate(histogram.counts) if number]
    first, last = filled[0], filled[-1] + 1
    return histogram.edges_s[first : last + 1], histogram.counts[first:last]


def _axis(edges: Sequence[float]) -> str:
    """Some of the edges as text below the drawing, evenly spread, since text in it would be stretched."""
    ticks = min(_LABELS, len(edges))
    chosen = [edges[round(index * (len(edges) - 1) / (ticks - 1))] for index in range(ticks)]
    return f'<p class="axis" aria-hidden="true">{"".join(f"<span>{seconds(edge)}</span>" for edge in chosen)}</p>'
