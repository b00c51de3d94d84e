"""Numbers, times and sizes as the pages show them."""

from dataclasses import dataclass

from django import template
from django.utils.safestring import SafeString

from tiltyard.submissions.states import RunState
from tiltyard.submissions.uploads import human_size
from tiltyard.web.markdown import render_markdown

register = template.Library()

_BAR_LEFT = 3.0
_BAR_WIDTH = 90.0
_CHIPS = {RunState.SCORED: "good", RunState.FAILED: "bad", RunState.CANCELLED: "", RunState.QUEUED: ""}


@dataclass(frozen=True)
class Bar:
    """Where the parts of an interval bar lie, in the SVG's units."""

    low: float
    high: float
    point: float
    zero: float | None


@register.filter
def percent(value: float | None) -> str:
    """0.6238 as "62.4"."""
    return "–" if value is None else f"{100 * value:.1f}"


@register.filter
def signed_percent(value: float | None) -> str:
    """-0.031 as "−3.1", 0.031 as "+3.1", with a real minus sign as wide as the plus."""
    if value is None:
        return "–"
    text = f"{100 * value:+.1f}".replace("-", "−")
    return text.lstrip("+−") if text in {"+0.0", "−0.0"} else text


@register.filter
def size(value: int) -> str:
    """1610612736 as "1.5 GiB", 1073741824 as "1 GiB"."""
    return human_size(int(value)).replace(".0 ", " ")


@register.filter
def duration(seconds: float | None) -> str:
    """75.2 as "1 min 15 s"; the two largest units."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (left, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number or len(parts) == 1)


@register.filter
def markdown(text: str) -> SafeString:
    return render_markdown(text)


@register.filter
def chip(state: str) -> str:
    """The class of a state's chip."""
    return _CHIPS.get(RunState(state), "live")


@register.inclusion_tag("web/_interval.html")
def interval(value: float | None, low: float | None, high: float | None, tone: str) -> dict[str, object]:
    """A score in percent with its bar from 0 to 100 and its bounds."""
    if value is None or low is None or high is None:
        return {"value": None}
    return {"value": value, "low": low, "high": high, "tone": tone, "signed": False, "bar": _bar(value, low, high, 0.0)}


@register.inclusion_tag("web/_interval.html")
def gap_interval(value: float | None, low: float | None, high: float | None, is_large: bool) -> dict[str, object]:
    """A difference of scores with its bar from −25 to +75 points, zero marked; larger ones end at the edge."""
    if value is None or low is None or high is None:
        return {"value": None}
    tone = "large" if is_large else "gap"
    return {
        "value": value,
        "low": low,
        "high": high,
        "tone": tone,
        "signed": True,
        "bar": _bar(value, low, high, -0.25),
    }


def _bar(value: float, low: float, high: float, start: float) -> Bar:
    def place(number: float) -> float:
        return round(_BAR_LEFT + _BAR_WIDTH * min(max(number - start, 0.0), 1.0), 2)

    return Bar(place(low), place(high), place(value), place(0.0) if start < 0 else None)
