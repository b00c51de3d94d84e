from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tiltyard_baselines.plot import Curve, overlay

SVG = "{http://www.w3.org/2000/svg}"


def test_overlay_draws_each_curve_with_its_last_mean(tmp_path: Path) -> None:
    falling = [1.0 / step for step in range(1, 41)]
    overlay([Curve("plain", falling, "#aaa", 5), Curve("ours", falling, "#123")], tmp_path / "a.svg", "title")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()  # noqa: S314  our own file
    first, second = root.iter(f"{SVG}polyline")
    assert first.get("points") == second.get("points")
    spots = [tuple(map(float, spot.split(","))) for spot in str(first.get("points")).split()]
    assert len(spots) == 40
    assert all(x < following[0] and y < following[1] for (x, y), following in pairwise(spots))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    mean = sum(falling[-10:]) / 10
    assert f"plain, at the end {mean:.4f}" in texts
    assert {"title", "step 40", "0.1"} <= set(texts)


def test_a_shorter_curve_ends_earlier(tmp_path: Path) -> None:
    overlay([Curve("a", [1.0] * 9, "#aaa"), Curve("b", [0.5] * 5, "#123")], tmp_path / "a.svg", "")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()  # noqa: S314  our own file
    lines = [str(line.get("points")).split() for line in root.iter(f"{SVG}polyline")]
    assert [len(line) for line in lines] == [9, 5]
    xs = [[float(spot.split(",")[0]) for spot in line] for line in lines]
    assert xs[1] == xs[0][:5]
    assert "b, cut off at step 5, 0.5000" in {text.text for text in root.iter(f"{SVG}text")}


@pytest.mark.parametrize("curves", [[], [Curve("a", [], "#aaa")]])
def test_nothing_to_draw_is_an_error(curves: list[Curve], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no curves to plot"):
        overlay(curves, tmp_path / "a.svg", "")
