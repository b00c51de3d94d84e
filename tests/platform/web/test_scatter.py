"""The plot's geometry, and numbers as the pages show them."""

import re

import pytest

from tiltyard.web.scatter import BOTTOM, LEFT, RIGHT, TOP, Measured, own_point, plot
from tiltyard.web.templatetags.tiltyard_web import duration, gap_interval, interval, percent, signed_percent, size


def measured(open_score: float, hidden_score: float, label: str = "entry") -> Measured:
    return Measured(
        label=label,
        url="/runs/1/",
        open=(open_score, open_score - 0.05, open_score + 0.05),
        hidden=(hidden_score, hidden_score - 0.05, hidden_score + 0.05),
        is_baseline=False,
        is_large_gap=False,
    )


def test_scores_are_placed_on_the_axes() -> None:
    low, high = plot([measured(0.0, 0.0), measured(1.0, 1.0)]).points

    assert (low.x, low.y) == (LEFT, BOTTOM)
    assert (high.x, high.y) == (RIGHT, TOP)
    assert high.x_high == RIGHT  # an interval that reaches beyond 1 ends at the frame


def test_labels_of_equal_points_do_not_lie_on_one_another() -> None:
    points = plot([measured(0.5, 0.5, f"entry {number}") for number in range(6)]).points

    places = {(point.label_y, point.anchor) for point in points}
    assert len(places) == 6


def test_a_label_stays_inside_the_frame() -> None:
    point = plot([measured(0.98, 0.4, "a name of some length")]).points[0]

    assert point.anchor == "end"
    assert point.label_x < point.x


def test_many_equal_points_still_get_a_place_each() -> None:
    assert len(plot([measured(0.5, 0.5)] * 200).points) == 200


def test_in_a_crowd_a_name_without_room_is_left_to_the_tooltip() -> None:
    points = plot([measured(0.5, 0.5, f"entry {number}") for number in range(24)]).points

    shown = [(point.label_y, point.anchor) for point in points if point.label]
    assert 6 < len(shown) < 24
    assert len(set(shown)) == len(shown)


def test_of_very_many_entries_the_plain_dots_are_one_path_and_ones_own_is_named() -> None:
    entries = [measured(0.2 + n / 5000, 0.3, f"entry {n}")._replace(url=f"/runs/{n}/") for n in range(2000)]
    drawn = plot(entries)
    assert len(drawn.points) == 8
    assert drawn.crowd.count("h0") <= 1992
    assert len(drawn.crowd) < 40_000
    own = own_point(drawn, entries[700])
    assert own is not None
    assert own.label == "entry 700"
    assert own_point(drawn, entries[0]) is None, "it has its name already"


@pytest.mark.parametrize(("value", "text"), [(0.0, "0.0"), (0.6238, "62.4"), (1.0, "100.0"), (None, "–")])
def test_percent(value: float | None, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.031, "+3.1"), (-0.031, "−3.1"), (0.0, "0.0"), (-0.0001, "0.0"), (None, "–")]
)
def test_signed_percent(value: float | None, text: str) -> None:
    assert signed_percent(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (75, "1 min 15 s"), (900, "15 min"), (3600, "1 h"), (90_000, "1 d 1 h"), (None, "")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_size() -> None:
    assert size(1 << 30) == "1 GiB"
    assert size(1610612736) == "1.5 GiB"


def test_the_bar_of_a_gap_marks_zero_and_that_of_a_score_does_not() -> None:
    score, gap = interval(0.5, 0.4, 0.6, "open"), gap_interval(0.0, -0.1, 0.1, False)

    places = {name: float(x) for name, x in re.findall(r'class="bar-(zero|point|range)" x1="([\d.]+)"', gap)}
    assert "bar-zero" not in score
    assert places["range"] < places["zero"] == places["point"]
