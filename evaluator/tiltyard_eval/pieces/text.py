"""Numbers and hostile texts as every page shows them."""

import re
from html import escape
from typing import Final

# Characters that act on the text around them instead of being seen: C0 and C1 controls, what sets or turns the
# direction of writing (UAX #9), separators of lines that HTML does not break, and halves of surrogate pairs.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)
_MINUS: Final = "\N{MINUS SIGN}"


def visible(text: str) -> str:
    """`text` with every character that could hide or turn others as its code point, such as ⟨U+202E⟩."""
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text.replace("\r\n", "\n"))


def html(text: object) -> str:
    """Anything as HTML text that shows what is there and does nothing."""
    return escape(visible(str(text)))


def clipped(text: str, chars: int) -> str:
    """The beginning of a text that is too long to show, saying how much is left out."""
    return text if len(text) <= chars else f"{text[:chars]}… ({len(text) - chars:,} more characters)"


def percent(share: float) -> str:
    """A share in 0..1 as per cent with one decimal: "62.4"."""
    return f"{share * 100:.1f}"


def signed(share: float) -> str:
    """A difference of shares in points with its sign, "+3.1" or "−3.1"; nothing is "0.0"."""
    text = f"{share * 100:+.1f}".replace("-", _MINUS)
    return "0.0" if text[1:] == "0.0" else text


def seconds(value: float | None) -> str:
    """A duration with three significant digits: "84.2 ms", "1.50 s", "12.3 min"."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def count(number: int) -> str:
    """A count with its thousands apart: "10,000"."""
    return f"{number:,}"
