"""One page of a board as its template shows it.

Rows and plot are made once for a board and kept with it, because they are the same for everybody. Of a visitor who is
on the page the own row is made anew, and the own point is put on top of the plot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from django.core.paginator import Page
from django.template.loader import render_to_string
from django.utils.functional import cached_property
from django.utils.safestring import SafeString, mark_safe

from tiltyard.leaderboards.board import Board, Entry
from tiltyard.leaderboards.kept import Kept
from tiltyard.web.board_rows import Rows, run_addresses
from tiltyard.web.scatter import Measured, Plot, own_point, plot

PAGE_ENTRIES = 50
_OWN_PLACE = SafeString("<!-- own -->")  # in the plot that is the same for everybody; entries' names are escaped


@dataclass(frozen=True)
class Choice:
    """What the visitor wants to see: a view, sorted by a column or (empty) by rank, of entries that hold a text."""

    view: str
    sort: str = ""
    search: str = ""

    def parameters(self) -> dict[str, str]:
        """As they stand in an address, without the usual ones."""
        given = {"view": "" if self.view == "scores" else self.view, "sort": self.sort, "q": self.search}
        return {name: value for name, value in given.items() if value}

    def entries(self, kept: Kept) -> Sequence[Entry]:
        listed = kept.made(("listed", self.sort), lambda: _sorted(kept.board, self.sort))
        if not self.search:
            return listed
        wanted = self.search.casefold()
        return [entry for entry in listed if wanted in f"{entry.name}\n{entry.owner_name}".casefold()]


@dataclass(frozen=True)
class Group:
    """Entries of a page that belong to one tie group, which has `size` entries in all and begins with `first`."""

    number: int | None  # None: not compared
    size: int
    first: str
    rows: Sequence[SafeString]


class BoardPage:
    """What a template asks for; `mine` is the place of the visitor's entry on the board, or None."""

    def __init__(self, kept: Kept, choice: Choice, page: Page[Entry], mine: int | None) -> None:
        self.board = kept.board
        self.columns = [(column, choice.sort == column.name) for column in kept.board.columns]
        self._kept = kept
        self._choice = choice
        self._page = page
        self._entries = list(page.object_list)
        self._mine = None if mine is None else kept.board.entries[mine]

    @property
    def has_mine(self) -> bool:
        return self._mine is not None and any(entry is self._mine for entry in self._entries)

    @property
    def has_statistics(self) -> bool:
        return self.board.statistics is not None

    @property
    def has_groups(self) -> bool:
        """Groups are stretches of the ranking, so another order has none."""
        return self.has_statistics and self.board.ranked_by is None and not self._choice.sort

    @property
    def has_twins(self) -> bool:
        entries = self.board.entries
        return self._kept.made("has twins", lambda: any(one.statistics and one.statistics.twins for one in entries))

    @property
    def width(self) -> int:
        """Cells of a row."""
        return 7 + len(self.columns)

    @cached_property
    def rows(self) -> list[SafeString]:
        choice = self._choice
        if choice.search:
            rows = [self._rows.row(entry) for entry in self._entries]
        else:
            name = ("rows", choice.view, choice.sort, self._page.number)
            rows = list(self._kept.made(name, lambda: [self._rows.row(entry) for entry in self._entries]))
        for place, entry in enumerate(self._entries):
            if entry is self._mine:
                rows[place] = self._rows.row(entry, is_mine=True)
        return rows

    @property
    def groups(self) -> list[Group]:
        if not self.has_groups:
            return [Group(None, len(self.rows), "", self.rows)]
        known = self._kept.made("groups", lambda: _group_heads(self.board.entries))
        numbered = zip(self._entries, self.rows, strict=True)
        return [
            Group(number, *known[number], [row for _, row in members])
            for number, members in groupby(numbered, key=lambda pair: _group_of(pair[0]))
        ]

    @property
    def plot(self) -> SafeString | None:
        """On the first page of the whole board; None where nothing can be drawn."""
        if self._page.number > 1 or self._choice.search or self._choice.sort:
            return None
        drawn: Plot = self._kept.made("plot", lambda: plot(_measured(self.board.entries)))
        if drawn.is_empty:
            return None
        svg: SafeString = self._kept.made("drawn", lambda: _draw(drawn))
        points = [] if self._mine is None else [own_point(drawn, one) for one in _measured([self._mine])]
        own = "".join(
            render_to_string("competition/_scatter_point.html", {"point": point}) for point in points if point
        )
        return mark_safe(svg.replace(_OWN_PLACE, own))  # noqa: S308  both are rendered templates

    @cached_property
    def _rows(self) -> Rows:
        return Rows(
            view=self._choice.view,
            columns=self.board.columns,
            has_ranges=self.board.ranked_by is None,
            has_twins=self.has_twins,
            address=run_addresses(),
        )


def place_of(kept: Kept, owner_id: int) -> int | None:
    """Where a participant's entry stands, from 0."""
    places: dict[int, int] = kept.made("places", lambda: _places(kept.board.entries))
    return places.get(owner_id)


def _places(entries: Sequence[Entry]) -> dict[int, int]:
    return {entry.owner_id: place for place, entry in enumerate(entries) if not entry.is_baseline}


def _sorted(board: Board, sort: str) -> Sequence[Entry]:
    """By a column, best first and not measured last; equal ones in the order of the ranking."""
    column = next((one for one in board.columns if one.name == sort), None)
    if column is None:
        return board.entries
    sign = 1.0 if column.more_is_better is False else -1.0
    measured = [entry for entry in board.entries if entry.figures[sort] is not None]
    rest = [entry for entry in board.entries if entry.figures[sort] is None]
    return [*sorted(measured, key=lambda entry: sign * (entry.figures[sort] or 0.0)), *rest]


def _group_of(entry: Entry) -> int | None:
    return entry.statistics.group if entry.statistics else None


def _group_heads(entries: Sequence[Entry]) -> dict[int | None, tuple[int, str]]:
    """(size, name of the first entry) by the group's number."""
    heads: dict[int | None, tuple[int, str]] = {}
    for entry in entries:
        size, first = heads.get(_group_of(entry), (0, entry.name))
        heads[_group_of(entry)] = (size + 1, first)
    return heads


def _draw(drawn: Plot) -> SafeString:
    return render_to_string("competition/_scatter.html", {"plot": drawn, "own_place": _OWN_PLACE})


def _measured(entries: Sequence[Entry]) -> list[Measured]:
    found = []
    address = run_addresses()
    for entry in entries:
        if entry.open is None or entry.hidden is None or entry.open.low is None or entry.open.high is None:
            continue
        hidden = entry.hidden
        found.append(
            Measured(
                label=entry.name,
                url=address(entry.run_id),
                open=(entry.open.value, entry.open.low, entry.open.high),
                hidden=(
                    hidden.value,
                    hidden.value if hidden.low is None else hidden.low,
                    hidden.value if hidden.high is None else hidden.high,
                ),
                is_baseline=entry.is_reference,
                is_large_gap=entry.is_flagged,
            )
        )
    return found
