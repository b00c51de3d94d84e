"""Geometry of the open-against-hidden plot; the template only writes it down as SVG.

x is the open score, y the hidden score, both 0 to 1. On the diagonal a submission does equally well on both; below it,
better on the questions that everyone can see. Labels are moved apart greedily, nearest to their points first. Of many
entries only the notable ones have a label and arms, or nothing could be read; the others are dots with a tooltip, and
of very many the rest is one path, because two thousand links would weigh half a megabyte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

LEFT, RIGHT, TOP, BOTTOM = 80.0, 622.0, 16.0, 490.0
_LABEL_HEIGHT = 22.0
_CHAR_WIDTH = 10.0  # of the larger letters that phones get
_LABEL_CHARS = 20
_ALL_NAMED = 24  # up to so many entries all have labels
_FIRST_NAMED = 8  # else so many of the best, beside baselines and flagged ones
_NAMED_MAX = 40
_LINKED_MAX = 200  # with more entries, those without a name are dots of one path
_STEPS = (0, -1, 1, -2, 2, -3, 3, -4, 4)


class Measured(NamedTuple):
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
    is_named: bool = True


@dataclass(frozen=True)
class Plot:
    """Points with their own links, named ones last, so that they lie on top; `crowd` is a path of all other dots."""

    points: list[Point]
    crowd: str
    ticks: list[Tick]

    @property
    def is_empty(self) -> bool:
        return not self.points


def plot(entries: Sequence[Measured]) -> Plot:
    """Place every entry, best first, the axes running from 0 to 1."""
    ticks = [Tick(round(_x(k / 5), 1), round(_y(k / 5), 1), str(20 * k)) for k in range(6)]
    named = _named(entries)
    in_the_way = [entry for place, entry in enumerate(entries) if place in named or len(entries) <= _LINKED_MAX]
    taken = [(x - 9, x + 9, y - 9, y + 9) for x, y in ((_x(e.open[0]), _y(e.hidden[0])) for e in in_the_way)]
    points = [_point(entry, taken) for place, entry in enumerate(entries) if place in named]
    others = [entry for place, entry in enumerate(entries) if place not in named]
    if len(entries) <= _LINKED_MAX:
        return Plot([*map(_dot, others), *points], "", ticks)
    # A line of no length with round ends is a dot.
    crowd = "".join(f"M{x:g} {y:g}h0" for x, y in sorted({_center(entry) for entry in others}))
    return Plot(points, crowd, ticks)


def own_point(drawn: Plot, own: Measured) -> Point | None:
    """The visitor's own entry with its label, to lie on top; None when it has one already."""
    if any(point.is_named and point.measured.url == own.url for point in drawn.points):
        return None
    return _point(own, [])


def _named(entries: Sequence[Measured]) -> set[int]:
    """The places of those with a label: all of few; of many the best, the baselines and the flagged."""
    if len(entries) <= _ALL_NAMED:
        return set(range(len(entries)))
    notable = [place for place, entry in enumerate(entries) if entry.is_baseline or entry.is_large_gap]
    return {*range(_FIRST_NAMED), *notable[: _NAMED_MAX - _FIRST_NAMED]}


def _dot(entry: Measured) -> Point:
    x, y = _center(entry)
    return Point(entry, x, y, x, x, y, y, "", x, y, "start", has_leader=False, is_named=False)


def _center(entry: Measured) -> tuple[float, float]:
    return round(_x(entry.open[0]), 1), round(_y(entry.hidden[0]), 1)


def _x(score: float) -> float:
    return LEFT + (RIGHT - LEFT) * min(max(score, 0.0), 1.0)


def _y(score: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * min(max(score, 0.0), 1.0)


def _point(entry: Measured, taken: list[tuple[float, float, float, float]]) -> Point:
    x, x_low, x_high = (round(_x(score), 1) for score in entry.open)
    y, y_low, y_high = (round(_y(score), 1) for score in entry.hidden)
    label = entry.label if len(entry.label) <= _LABEL_CHARS else entry.label[: _LABEL_CHARS - 1] + "…"
    place = _label_place(x, y, len(label) * _CHAR_WIDTH, taken)
    if place is None:  # its tooltip says the name
        return Point(entry, x, y, x_low, x_high, y_low, y_high, "", x, y, "start", has_leader=False)
    label_x, label_y, anchor = place
    has_leader = abs(label_y - y) > _LABEL_HEIGHT
    return Point(entry, x, y, x_low, x_high, y_low, y_high, label, label_x, round(label_y + 5, 1), anchor, has_leader)


def _label_place(
    x: float, y: float, width: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, str] | None:
    """The nearest free place beside a point, right before left, whose box is added to `taken`; None in a crowd."""
    for step, is_right in product(_STEPS, (True, False)):
        middle = y + step * _LABEL_HEIGHT
        start = x + 12 if is_right else x - 12 - width
        box = (start, start + width, middle - _LABEL_HEIGHT / 2, middle + _LABEL_HEIGHT / 2)
        inside = box[0] >= LEFT and box[1] <= RIGHT and box[2] >= TOP and box[3] <= BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return (x + 12, middle, "start") if is_right else (x - 12, middle, "end")
    return None


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
