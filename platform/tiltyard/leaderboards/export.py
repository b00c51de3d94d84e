"""A board as CSV, with everything that its page says of an entry. The API has the same as JSON."""

import csv
import io

from tiltyard.leaderboards.board import Board, Entry, Shown
from tiltyard.leaderboards.documents import Excess, Range, Twins

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_PARTS = ("score", "weighted_mean", "open", "hidden", "gap", "excess", "strength", "twins")
CSV_HEADER = (
    ["rank", "rank_low", "rank_high", "group", "name", "owner", "baseline", "reference"]
    + [f"{part}{suffix}" for part in _PARTS for suffix in ("", "_low", "_high")]
    + ["flagged", "excess_over", "excess_p", "twin_pairs", "twins_flagged", "twins_p", "win_rate"]
    + ["submitted_at", "run_id"]
)


def board_csv(board: Board) -> str:
    """The board with a header line, the track's own columns last; scores as fractions, times in ISO 8601, empty what
    there is not, was not measured or is withheld.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [*CSV_HEADER, *(column.name for column in board.columns)])
    writer.writeheader()
    writer.writerows(_row(entry) for entry in board.entries)
    return text.getvalue()


def _row(entry: Entry) -> dict[str, object]:
    found = entry.statistics
    row: dict[str, object] = {
        "rank": entry.rank,
        "name": _inert(entry.name),
        "owner": _inert(entry.owner_name),
        "baseline": _yes(entry.is_baseline),
        "reference": _yes(entry.is_reference),
        "submitted_at": entry.submitted_at.isoformat(),
        "run_id": entry.run_id,
        **{name: "" if value is None else f"{value:g}" for name, value in entry.figures.items()},
    }
    row |= _numbers("score", entry.score) | _numbers("weighted_mean", entry.mean)
    row |= _numbers("open", entry.open) | _numbers("hidden", entry.hidden) | _numbers("gap", entry.gap)
    if found is None:
        return row
    row |= {"rank_low": found.rank_low, "rank_high": found.rank_high, "group": found.group}
    row |= {"win_rate": _number(found.win_rate)}
    row |= _numbers("strength", found.strength) | _numbers("excess", found.excess) | _numbers("twins", found.twins)
    if found.excess:
        row |= {"flagged": _yes(found.excess.flagged), "excess_over": _inert(found.excess.baseline)}
        row |= {"excess_p": f"{found.excess.p_value:.3g}"}
    if found.twins:
        p_value = found.twins.p_value
        row |= {"twin_pairs": found.twins.pairs, "twins_flagged": _yes(found.twins.flagged)}
        row |= {"twins_p": "" if p_value is None else f"{p_value:.3g}"}
    return row


def _numbers(part: str, found: Shown | Range | Excess | Twins | None) -> dict[str, object]:
    if found is None:
        return {}
    return {part: _number(found.value), f"{part}_low": _number(found.low), f"{part}_high": _number(found.high)}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _inert(text: str) -> str:
    """A participant's text that no spreadsheet takes for a formula: also not behind blanks, or in full-width signs."""
    return f"'{text}" if text.lstrip().startswith(_FORMULA) or text[:1].isspace() else text
