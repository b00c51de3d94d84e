"""Follow runs in plain lines, and print a leaderboard."""

import time
import uuid
from collections.abc import Callable, Sequence

from tiltyard.leaderboards.board import Board, Entry, Shown
from tiltyard.submissions.models import Run

_POLL_S = 0.5
_PROGRESS_EVERY_S = 10.0


def follow(runs: Sequence[Run], say: Callable[[str], None], check: Callable[[], None]) -> list[Run]:
    """Say each event of these runs, and now and then how far they are, until all are over; returns them as they ended.

    `check` is called at every poll and raises when there is nobody left to move the runs.
    """
    said: dict[uuid.UUID, int] = {run.pk: _last_event(run) for run in runs if run.is_final}
    progress_at = time.monotonic()
    while True:
        check()
        current = list(Run.objects.filter(pk__in=[run.pk for run in runs]).select_related("submission"))
        for run in current:
            for event in run.events.filter(pk__gt=said.get(run.pk, 0)).order_by("pk"):
                say(f"{run.submission.name:<12} {event.get_state_display():<18} {event.message}")
                said[run.pk] = event.pk
        if all(run.is_final for run in current):
            order = [run.pk for run in runs]
            return sorted(current, key=lambda run: order.index(run.pk))
        if time.monotonic() - progress_at >= _PROGRESS_EVERY_S:
            progress_at = time.monotonic()
            for run in current:
                if run.items_total and not run.is_final:
                    done = f"{run.items_done} of {run.items_total} questions"
                    say(f"{run.submission.name:<12} {run.current_suite}: {done}")
        time.sleep(_POLL_S)


def _last_event(run: Run) -> int:
    event = run.events.order_by("pk").last()
    return event.pk if event else 0


def board_table(board: Board) -> str:
    """The leaderboard as aligned text; scores in percent with their 95 % intervals."""
    header = ["", "submission", "by", "score", "open", "hidden", "open − hidden"]
    rows = [header, *(_cells(entry) for entry in board.entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def _cells(entry: Entry) -> list[str]:
    rank = "–" if entry.rank is None else str(entry.rank)
    intervals = [_percent(part) for part in (entry.score, entry.open, entry.hidden, entry.gap)]
    return [rank, entry.name, entry.owner_name, *intervals]


def _percent(part: Shown | None) -> str:
    if part is None:
        return ""
    bounds = "" if part.low is None or part.high is None else f"  [{100 * part.low:.1f}, {100 * part.high:.1f}]"
    return f"{100 * part.value:5.1f}{bounds}"
