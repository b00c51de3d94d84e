"""Words for numbers of the status page."""

from django import template

register = template.Library()


@register.filter
def about_duration(seconds: float | None) -> str:
    """Seconds as people say them: 'none', '40 s', '12 min', '3 h'; 'not known' for None."""
    if seconds is None:
        return "not known"
    if seconds < 1:
        return "none"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
