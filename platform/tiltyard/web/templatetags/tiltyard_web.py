"""Numbers, times and sizes as the pages show them."""

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from tiltyard.submissions.states import RunState
from tiltyard.submissions.uploads import human_size
from tiltyard.web.markdown import render_markdown
from tiltyard_eval.pieces import intervals as pieces
from tiltyard_eval.pieces.text import signed

register = template.Library()

_NOTHING = SafeString('<span class="muted">–</span>')
_CHIPS = {RunState.SCORED: "good", RunState.FAILED: "bad", RunState.CANCELLED: "", RunState.QUEUED: ""}


@register.filter
def sentence_case(text: str) -> str:
    """ "Sign Up" as "Sign up": allauth's headings and buttons, beside those of the site."""
    stripped = text.strip()
    return mark_safe(stripped[:1].upper() + stripped[1:].lower())  # noqa: S308  a slot is escaped already


@register.filter
def percent(value: float | None) -> str:
    """0.6238 as "62.4"."""
    return "–" if value is None else f"{100 * value:.1f}"


@register.filter
def signed_percent(value: float | None) -> str:
    """-0.031 as "−3.1", 0.031 as "+3.1", with a real minus sign as wide as the plus."""
    return "–" if value is None else signed(value)


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


@register.simple_tag
def interval(value: float | None, low: float | None, high: float | None, tone: str) -> SafeString:
    """A score in percent with its bar from 0 to 100 and its bounds; alone where the Ladder published it without."""
    if value is None:
        return _NOTHING
    if low is None or high is None:
        return format_html(
            '<span class="interval tone-{}"><strong>{}</strong>'
            '<small title="Shown only when it rises by a whole step, and rounded">stepwise</small></span>',
            tone,
            percent(value),
        )
    return mark_safe(pieces.interval(value, low, high, tone))  # noqa: S308  made of numbers


@register.simple_tag
def gap_interval(value: float | None, low: float | None, high: float | None, is_large: bool) -> SafeString:
    """A difference of scores with its bar from −25 to +75 points, zero marked; larger ones end at the edge."""
    if value is None or low is None or high is None:
        return _NOTHING
    tone = "large" if is_large else "gap"
    return mark_safe(pieces.difference(value, low, high, tone, start=-0.25))  # noqa: S308  made of numbers
