"""Geometry of the open-against-hidden plot; the template only writes it down as SVG.

x is the open score, y the hidden score, both 0 to 1. On the diagonal a submission does equally well on both; below it,
better on the questions that everyone can see. Labels are moved apart greedily, nearest to their points first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

LEFT, RIGHT, TOP, BOTTOM = 80.0, 622.0, 16.0, 490.0
_LABEL_HEIGHT = 22.0
_CHAR_WIDTH = 10.0  # of the larger letters that phones get
_LABEL_CHARS = 20
_STEPS = (0, -1, 1, -2, 2, -3, 3, -4, 4)


@dataclass(frozen=True)
class Measured:
    """One submission: (value, low, high) on each suite, in 0 to 1."""

    label: str
    url: str
    open: tuple[float, float, float]
    hidden: tuple[float, float, float]
    is_baseline: bool
    is_large_gap: bool


@dataclass(frozen=True)
class Tick:
    at_x: float
    at_y: float
    text: str


@dataclass(frozen=True)
class Point:
    """A point in the SVG's units, y downwards, with whiskers and the place of its label."""

    measured: Measured
    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    label: str
    label_x: float
    label_y: float
    anchor: str
    has_leader: bool


@dataclass(frozen=True)
class Plot:
    points: list[Point]
    ticks: list[Tick]


def plot(entries: Sequence[Measured]) -> Plot:
    """Place every entry, the axes running from 0 to 1."""
    ticks = [Tick(round(_x(k / 5), 1), round(_y(k / 5), 1), str(20 * k)) for k in range(6)]
    taken = [(x - 9, x + 9, y - 9, y + 9) for x, y in ((_x(e.open[0]), _y(e.hidden[0])) for e in entries)]
    return Plot([_point(entry, taken) for entry in entries], ticks)


def _x(score: float) -> float:
    return LEFT + (RIGHT - LEFT) * min(max(score, 0.0), 1.0)


def _y(score: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * min(max(score, 0.0), 1.0)


def _point(entry: Measured, taken: list[tuple[float, float, float, float]]) -> Point:
    x, x_low, x_high = (round(_x(score), 1) for score in entry.open)
    y, y_low, y_high = (round(_y(score), 1) for score in entry.hidden)
    label = entry.label if len(entry.label) <= _LABEL_CHARS else entry.label[: _LABEL_CHARS - 1] + "…"
    label_x, label_y, anchor = _label_place(x, y, len(label) * _CHAR_WIDTH, taken)
    has_leader = abs(label_y - y) > _LABEL_HEIGHT
    return Point(entry, x, y, x_low, x_high, y_low, y_high, label, label_x, round(label_y + 5, 1), anchor, has_leader)


def _label_place(
    x: float, y: float, width: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, str]:
    """The nearest free place beside a point, right before left; its box is added to `taken`."""
    for step, is_right in product(_STEPS, (True, False)):
        middle = y + step * _LABEL_HEIGHT
        start = x + 12 if is_right else x - 12 - width
        box = (start, start + width, middle - _LABEL_HEIGHT / 2, middle + _LABEL_HEIGHT / 2)
        inside = box[0] >= LEFT and box[1] <= RIGHT and box[2] >= TOP and box[3] <= BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return (x + 12, middle, "start") if is_right else (x - 12, middle, "end")
    return (x + 12, y, "start") if x + 12 + width <= RIGHT else (x - 12, y, "end")


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
