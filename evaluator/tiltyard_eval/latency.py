"""How long requests took: percentiles, and a histogram of fixed size that two runs can be compared by. NumPy only.

The edges follow the preferred numbers 1, 2, 5 in every decade, from a millisecond to a thousand seconds: about the
resolution at which a reader tells latencies apart, over all that a request may take.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tiltyard_eval.results import LatencyHistogram

EDGES_S: Final = (
    *(0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0),
)
_SHARES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
_DIGITS: Final = 4


def latency_fields(latencies_s: Sequence[float]) -> dict[str, Any]:
    """The latency fields of a result's timing: percentiles in seconds (None without requests) and the histogram."""
    found = {name: percentile(latencies_s, share) for name, share in _SHARES.items()}
    return {
        "latency_histogram": histogram(latencies_s),
        **{f"latency_{name}_s": None if value is None else round(value, _DIGITS) for name, value in found.items()},
    }


def histogram(latencies_s: Sequence[float]) -> LatencyHistogram:
    """Counts by `EDGES_S`, each interval with its lower edge; the last one also holds all that took longer."""
    places = np.searchsorted(EDGES_S, np.asarray(latencies_s, dtype=np.float64), side="right") - 1
    counts = np.bincount(np.minimum(places, len(EDGES_S) - 2), minlength=len(EDGES_S) - 1)
    return LatencyHistogram(EDGES_S, tuple(int(count) for count in counts))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` (0..1) of `values` lie, or None when there are none."""
    return float(np.quantile(np.asarray(values), share)) if values else None
