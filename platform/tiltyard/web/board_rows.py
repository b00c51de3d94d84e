"""The rows of a board as HTML.

Written here and not in templates: a page has fifty of them, each with four intervals, and after every score those of
all pages are made anew. Django's templates take six times as long for them.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from tiltyard.competitions.columns import Column
from tiltyard.leaderboards.board import Entry, Shown
from tiltyard.leaderboards.documents import Excess, Twins
from tiltyard.leaderboards.figures import in_words
from tiltyard.web.templatetags.tiltyard_web import gap_interval, interval, percent

_ANY_RUN: Final = uuid.UUID(int=0)
_NONE: Final = "–"
_FLAGGED: Final = '<span class="chip bad">Flagged</span>'


def run_addresses() -> Callable[[uuid.UUID], str]:
    """The address of a run's page; asked for once, because of thousands it would take most of the time."""
    before, _, after = reverse("run", args=[_ANY_RUN]).partition(str(_ANY_RUN))
    return lambda run_id: f"{before}{run_id}{after}"


@dataclass(frozen=True)
class Rows:
    """What all rows of a board have in common.

    Attributes:
        view: "scores" or "duels".
        columns: The track's own.
        has_ranges: Whether possible ranks are shown.
        has_twins: Whether a gap between twins of questions is.
    """

    view: str
    columns: Sequence[Column]
    has_ranges: bool
    has_twins: bool
    address: Callable[[uuid.UUID], str]

    def row(self, entry: Entry, *, is_mine: bool = False) -> SafeString:
        """One entry, marked if it is the visitor's own."""
        cells = [
            f'<td class="rank" data-label="Rank">{_rank(entry, has_range=self.has_ranges)}</td>',
            f'<th scope="row" class="name">{self._name(entry, is_mine=is_mine)}</th>',
            f'<td data-label="By">{escape(entry.owner_name)}</td>',
            *(self._duels(entry) if self.view == "duels" else self._scores(entry)),
        ]
        start = '<tr class="mine">' if is_mine else "<tr>"
        return mark_safe(f"{start}{''.join(cells)}</tr>\n")  # noqa: S308  texts are escaped

    def _name(self, entry: Entry, *, is_mine: bool) -> str:
        chip = ""
        if entry.is_reference:
            chip = '<span class="chip" title="An honest model that gaps are compared with">Baseline</span>'
        elif entry.is_baseline:
            chip = '<span class="chip" title="Handed in by the organisers; not ranked">Example</span>'
        own = '<span class="chip live-off">You</span>' if is_mine else ""
        link = f'<a href="{self.address(entry.run_id)}">{escape(entry.name)}</a>'
        return f'<span class="entry-name">{link} {chip} {own}</span>'

    def _scores(self, entry: Entry) -> list[str]:
        flag = ""
        if entry.is_flagged and entry.statistics and (excess := entry.statistics.excess):
            more = f"loses {percent(excess.value)} points more than {escape(excess.baseline)}"
            flag = f'<span class="gap-flag">{_FLAGGED}<small>{more}</small></span>'
        return [
            *(_figure(column, entry.figures[column.name]) for column in self.columns),
            f'<td data-label="Score">{_interval(entry.score, "score")}</td>',
            f'<td data-label="Open">{_interval(entry.open, "open")}</td>',
            f'<td data-label="Hidden">{_interval(entry.hidden, "hidden")}</td>',
            f'<td data-label="Gap">{_gap(entry.gap, is_large=entry.is_flagged)}{flag}</td>',
        ]

    def _duels(self, entry: Entry) -> list[str]:
        found = entry.statistics
        chance, excess, twins = (found.chance, found.excess, found.twins) if found else (None, None, None)
        average = interval(chance.value, chance.low, chance.high, "score") if chance else _NONE
        over = twin = ""
        if excess:
            flag = _FLAGGED if entry.is_flagged else ""
            over = f'<span class="gap-flag">{flag}<small>over {escape(excess.baseline)}</small></span>'
        if twins:
            flag = _FLAGGED if twins.flagged else ""
            twin = f'<span class="gap-flag">{flag}<small>{twins.pairs} pairs</small></span>'
        cells = [
            f'<td data-label="Win rate" class="right">{percent(found.win_rate if found else None)}</td>',
            f'<td data-label="Against an average entry">{average}</td>',
            f'<td data-label="Gap beyond the baselines">{_gap(excess, is_large=entry.is_flagged)}{over}</td>',
        ]
        if self.has_twins:
            gap = _gap(twins, is_large=bool(twins and twins.flagged))
            cells.append(f'<td data-label="Same question, other words">{gap}{twin}</td>')
        return cells


def _rank(entry: Entry, *, has_range: bool) -> str:
    if not entry.rank:
        why = "Not measured, or its score is too low for a rank"
        if entry.is_baseline:
            why = "Organisers' entries are not ranked"
        return f'<span class="muted" title="{why}">–</span>'
    tied = '<span class="muted" title="Shared rank">=</span>' if entry.is_tied else ""
    found = entry.statistics
    possible = ""
    if has_range and found and found.rank_low:
        ranks = "sure" if found.rank_low == found.rank_high else f"{found.rank_low}–{found.rank_high}"
        possible = f' <small class="rank-range"><span class="visually-hidden">Possible ranks </span>{ranks}</small>'
    return f'<span class="rank-figure">{entry.rank}{tied}</span>{possible}'


def _figure(column: Column, value: float | None) -> str:
    muted = " muted" if value is None else ""
    return f'<td data-label="{escape(column.title)}" class="right num{muted}">{escape(in_words(column, value))}</td>'


def _interval(shown: Shown | None, tone: str) -> str:
    return interval(shown.value, shown.low, shown.high, tone) if shown else _NONE


def _gap(shown: Shown | Excess | Twins | None, *, is_large: bool) -> str:
    return gap_interval(shown.value, shown.low, shown.high, is_large) if shown else _NONE
