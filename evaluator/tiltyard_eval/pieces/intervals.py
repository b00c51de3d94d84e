"""A value with its interval: the figure, a bar, and the bounds."""

from typing import Final

from tiltyard_eval.pieces.text import percent, signed

_LEFT: Final = 3.0
_WIDTH: Final = 90.0  # of the bar, of 96 units


def interval(value: float, low: float, high: float, tone: str) -> str:
    """A score and its bounds, all in 0..1, on a bar from 0 to 100; `tone` is `score`, `open`, `hidden` or `plain`."""
    return _figure((value, low, high), tone, start=0.0, span=1.0, is_signed=False)


def difference(
    value: float, low: float, high: float, tone: str = "gap", *, start: float = -0.5, span: float = 1.0
) -> str:
    """A difference of scores in −1..1 on a bar of `span` from `start`, zero marked; what lies beyond ends there."""
    return _figure((value, low, high), tone, start=start, span=span, is_signed=True)


def _figure(numbers: tuple[float, float, float], tone: str, *, start: float, span: float, is_signed: bool) -> str:
    point, left, right = (_LEFT + _WIDTH * min(max((number - start) / span, 0.0), 1.0) for number in numbers)
    shown = [signed(number) if is_signed else percent(number) for number in numbers]
    zero = _LEFT - _WIDTH * start / span
    mark = f'<line class="bar-zero" x1="{zero:.2f}" x2="{zero:.2f}" y1="1" y2="11"/>' if start < 0 else ""
    between = " to " if is_signed else " – "
    return (
        f'<span class="interval tone-{tone}"><strong>{shown[0]}</strong>'
        '<svg viewBox="0 0 96 12" aria-hidden="true" focusable="false">'
        f'<line class="bar-rail" x1="{_LEFT:g}" x2="{_LEFT + _WIDTH:g}" y1="6" y2="6"/>{mark}'
        f'<line class="bar-range" x1="{left:.2f}" x2="{right:.2f}" y1="6" y2="6"/>'
        f'<line class="bar-point" x1="{point:.2f}" x2="{point:.2f}" y1="1" y2="11"/></svg>'
        f'<small><span class="visually-hidden">95&nbsp;% interval </span>{shown[1]}{between}{shown[2]}</small></span>'
    )
