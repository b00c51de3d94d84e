"""Loss curves as small SVGs, without a plotting library."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 300, 44
SMOOTHED_STEPS = 10
LEGEND_LINE = 16


@dataclass(frozen=True)
class Curve:
    """Losses (nats per token, > 0), one for each step, and how they are drawn: later curves lie over earlier ones."""

    label: str
    losses: Sequence[float]
    colour: str
    width: float = 1.5
    dashes: str = ""


def plot_loss(log_path: Path, svg_path: Path) -> None:
    """Draw ``answer_loss`` and ``loss`` of a training log over its tokens."""
    records = [json.loads(line) for line in log_path.read_text(encoding="utf-8").splitlines()]
    if not records:
        raise ValueError(f"{log_path} has no records to plot")
    last_token = records[-1]["tokens"]
    top = max(max(record["loss"], record["answer_loss"]) for record in records)

    def points(key: str) -> str:
        return " ".join(
            f"{MARGIN + (WIDTH - 2 * MARGIN) * record['tokens'] / last_token:.1f},"
            f"{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * record[key] / top:.1f}"
            for record in records
        )

    lines = [
        f'<polyline points="{points("loss")}" fill="none" stroke="#b9c4d0"/>',
        f'<polyline points="{points("answer_loss")}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>',
        f'<text x="{WIDTH - MARGIN}" y="{MARGIN}" text-anchor="end" fill="#1f5fa8">answer loss (nats per token)</text>',
        f'<text x="{WIDTH - MARGIN}" y="{MARGIN + 16}" text-anchor="end" fill="#7d8996">weighted loss</text>',
        _label(MARGIN, HEIGHT - MARGIN + 18, "start", "0"),
        _label(WIDTH - MARGIN, HEIGHT - MARGIN + 18, "end", f"{last_token / 1e6:.1f} M tokens"),
        _label(MARGIN - 6, MARGIN + 4, "end", f"{top:.2f}"),
        _label(MARGIN - 6, HEIGHT - MARGIN, "end", "0"),
    ]
    _write(svg_path, HEIGHT, lines)


def overlay(curves: Sequence[Curve], svg_path: Path, title: str) -> None:
    """Draw several curves over each other: loss on a logarithmic axis over steps, as means of ``SMOOTHED_STEPS``.

    A curve of fewer steps than others ends earlier.
    """
    if not curves or not all(curve.losses for curve in curves):
        raise ValueError("there are no curves to plot, or one of them has no steps")
    steps = max(len(curve.losses) for curve in curves)
    means = [_running_mean(curve.losses) for curve in curves]
    low = math.log(min(map(min, means)))
    span = math.log(max(map(max, means))) - low or 1.0
    height = HEIGHT + 100

    def y(loss: float) -> float:
        return height - MARGIN - (height - 2 * MARGIN) * (math.log(loss) - low) / span

    lines = [_label(MARGIN, MARGIN - 20, "start", title)]
    for loss in (10.0**power * digit for power in range(-4, 2) for digit in (1, 2, 5)):
        if low <= math.log(loss) <= low + span:
            lines.append(f'<path d="M{MARGIN} {y(loss):.1f}H{WIDTH - MARGIN}" stroke="#e4e8ec"/>')
            lines.append(_label(MARGIN - 6, y(loss) + 4, "end", f"{loss:g}"))
    for curve, losses in zip(curves, means, strict=True):
        spots = (
            f"{MARGIN + (WIDTH - 2 * MARGIN) * index / max(1, steps - 1):.1f},{y(loss):.1f}"
            for index, loss in enumerate(losses)
        )
        style = f'stroke="{curve.colour}" stroke-width="{curve.width}" stroke-dasharray="{curve.dashes}"'
        lines.append(f'<polyline points="{" ".join(spots)}" fill="none" {style}/>')
    for index, (curve, losses) in enumerate(zip(curves, means, strict=True)):
        at = MARGIN + 4 + LEGEND_LINE * index
        style = f'stroke="{curve.colour}" stroke-width="{curve.width}" stroke-dasharray="{curve.dashes}"'
        lines.append(f'<path d="M{WIDTH - MARGIN - 34} {at}h34" {style}/>')
        end = "at the end" if len(losses) == steps else f"cut off at step {len(losses)},"
        lines.append(_label(WIDTH - MARGIN - 40, at + 4, "end", f"{curve.label}, {end} {losses[-1]:.4f}"))
    lines.append(_label(MARGIN, height - MARGIN + 18, "start", "step 1"))
    lines.append(_label(WIDTH - MARGIN, height - MARGIN + 18, "end", f"step {steps}"))
    _write(svg_path, height, lines)


def _running_mean(losses: Sequence[float]) -> list[float]:
    """The mean of each step and up to ``SMOOTHED_STEPS`` - 1 before it."""
    windows = (losses[max(0, index + 1 - SMOOTHED_STEPS) : index + 1] for index in range(len(losses)))
    return [sum(window) / len(window) for window in windows]


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x}" y="{y:g}" text-anchor="{anchor}">{text}</text>'


def _write(svg_path: Path, height: int, lines: Sequence[str]) -> None:
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<path d="M{MARGIN} {MARGIN}V{height - MARGIN}H{WIDTH - MARGIN}" fill="none" stroke="#888"/>',
        *lines,
        "</svg>",
    ]
    svg_path.write_text("\n".join(svg) + "\n", encoding="utf-8")
