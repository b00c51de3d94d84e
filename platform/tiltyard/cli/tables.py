"""Tables for people: rich renderables made from the API's documents."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tiltyard.cli.output import printable

if TYPE_CHECKING:
    from rich.table import Table

    from tiltyard.cli.results import Evaluation


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right_aligned: Sequence[int] = ()) -> "Table":
    """A plain table. Cells are hostile text: shown as they are, without markup and control characters."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  rich is imported only when something is shown
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, header in enumerate(headers):
        made.add_column(header, justify="right" if index in right_aligned else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable("–" if cell is None else str(cell))) for cell in row))
    return made


def percent(value: object) -> str | None:
    """0.4271 as "42.7"."""
    return f"{100 * value:.1f}" if isinstance(value, int | float) else None


def interval(score: object) -> str | None:
    """{"value" or "score", "low", "high"} in 0..1 as "42.7 [40.1, 45.2]", or as "42.7" where there are no bounds."""
    if not isinstance(score, Mapping):
        return None
    value, low, high = (
        percent(score.get("value", score.get("score"))),
        percent(score.get("low")),
        percent(score.get("high")),
    )
    return f"{value} [{low}, {high}]" if value and low and high else value


def run_summary(run: Mapping[str, Any]) -> str:
    """A run in a few lines: where it stands or how it ended, and what to do when it failed."""
    lines = [f"Run {run.get('id')}: {run.get('state')}"]
    if run.get("state") == "failed":
        reason = run.get("failure_reason")
        lines.append(f"Verdict: {reason}. {run.get('failure_message') or 'The server gave no message.'}")
        lines.append(f"What to do: docs/how-to/read-a-verdict.md, and the log: tiltyard logs {run.get('id')}")
    elif run.get("state") == "scored":
        lines.append(f"Score, % [95 % interval]: {interval(run.get('score')) or '–'}")
        for suite in run.get("suites") or []:
            lines.append(f"  {suite.get('title')}: {interval(suite.get('score')) or '–'}")
    elif run.get("items_total"):
        lines.append(f"{run.get('current_suite')}: {run.get('items_done')} of {run.get('items_total')} questions")
    return "\n".join(lines)


def submissions_table(submissions: Iterable[Mapping[str, Any]]) -> "Table":
    """The account's submissions, one line each, with their latest run."""
    rows = []
    for submission in submissions:
        run = latest_run(submission)
        verdict = run.get("failure_reason") or run.get("state")
        rows.append(
            [submission.get("competition"), submission.get("name"), run.get("id"), verdict, interval(run.get("score"))]
        )
    return table(["Competition", "Name", "Run", "State", "Score, % [95 % interval]"], rows, right_aligned=(4,))


def latest_run(submission: Mapping[str, Any]) -> Mapping[str, Any]:
    """The newest run of a submission; an empty mapping when it has none."""
    runs = submission.get("runs")
    run = runs[0] if isinstance(runs, list) and runs else None
    return run if isinstance(run, Mapping) else {}


def leaderboard_table(board: Mapping[str, Any]) -> "Table":
    """The leaderboard, best first; the columns of statistics only where the server has them."""
    entries = board.get("entries") or []
    found = [_mapping(row.get("statistics")) for row in entries]
    has_groups = any(found) and not board.get("ranked_by")
    columns = [_mapping(column) for column in board.get("columns") or []]
    rows = []
    for row, statistics in zip(entries, found, strict=True):
        cells = [
            row.get("rank"),
            _entry_name(row),
            row.get("owner"),
            *(_figure(_mapping(row.get("figures")).get(str(column.get("name")))) for column in columns),
            *(interval(row.get(key)) for key in ("score", "open", "hidden")),
            _gap(row, statistics),
        ]
        if has_groups:
            cells[1:1] = [_possible_ranks(statistics), statistics.get("group")]
        rows.append(cells)
    own = [f"{column.get('title')}, {column.get('unit')}" for column in columns]
    headers = ["#", "Name", "By", *own, "Score, %", "Open, %", "Hidden, %", "Gap"]
    if has_groups:
        headers[1:1] = ["Possible", "Group"]
    return table(headers, rows, right_aligned=[0, *range(len(headers) - 4 - len(own), len(headers))])


def duels_table(board: Mapping[str, Any]) -> "Table":
    """The leaderboard's secondary view: win rates, strengths, and gaps beyond the baselines'."""
    rows = []
    for row in board.get("entries") or []:
        statistics = _mapping(row.get("statistics"))
        excess = _mapping(statistics.get("excess"))
        strength = _mapping(statistics.get("strength"))
        over = f" over {excess.get('baseline')}" if excess else ""
        cells = [row.get("rank"), _entry_name(row), percent(statistics.get("win_rate"))]
        cells += [number(strength.get("value")), f"{interval(excess) or '–'}{over}", interval(statistics.get("twins"))]
        rows.append(cells)
    headers = ["#", "Name", "Win rate, %", "Log-strength", "Gap beyond the baselines", "Same question, other words"]
    return table(headers, rows, right_aligned=(0, 2, 3, 4, 5))


def leaderboard_notes(board: Mapping[str, Any]) -> list[str]:
    """What the board says of itself, a sentence a line."""
    notes = []
    detectable = percent(_mapping(board.get("detectable")).get("ranking"))
    if detectable:
        notes.append(f"Entries closer than {detectable} points cannot be relied on to be told apart.")
    correlation = _mapping(board.get("correlation"))
    if correlation:
        value, low, high = (number(correlation.get(key)) for key in ("value", "low", "high"))
        notes.append(f"Rank correlation of open and hidden scores: {value} [{low}, {high}].")
    if board.get("feedback") == "ladder":
        notes.append("Hidden scores are published in steps until the round is over.")
    elif board.get("feedback") == "none":
        notes.append("Hidden scores are not published until the round is over.")
    if board.get("ranked_by"):
        notes.append(f"Ranked by {board.get('ranked_by')}; entries with too low a score have no rank.")
    shown, total = len(board.get("entries") or []), board.get("entries_total")
    if isinstance(total, int) and total > shown:
        notes.append(f"{shown} of {total} entries. --limit and --offset show others.")
    if board.get("problem"):
        notes.append(f"Ranked by the weighted mean for now: {board.get('problem')}")
    return notes


def _figure(value: object) -> str:
    """Two digits that count, as the server rounds them."""
    if not isinstance(value, int | float):
        return "not measured"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def number(value: object) -> str | None:
    """0.8312 as "0.83"."""
    return f"{value:.2f}" if isinstance(value, int | float) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _entry_name(row: Mapping[str, Any]) -> str:
    if not row.get("is_baseline"):
        return str(row.get("name"))
    return f"{row.get('name')} ({'baseline' if row.get('is_reference', True) else 'example'})"


def _possible_ranks(statistics: Mapping[str, Any]) -> str | None:
    low, high = statistics.get("rank_low"), statistics.get("rank_high")
    return None if low is None else str(low) if low == high else f"{low}–{high}"


def _gap(row: Mapping[str, Any], statistics: Mapping[str, Any]) -> str | None:
    gap = interval(row.get("gap"))
    return f"{gap} flagged" if gap and _mapping(statistics.get("excess")).get("flagged") else gap


def evaluation_table(evaluation: "Evaluation") -> "Table":
    """One line for each task and one for each suite."""
    rows: list[list[object]] = []
    for suite in evaluation.suites:
        rows += [
            [row.get("title"), row.get("items"), interval(row), row.get("format_failures")]
            for row in suite.result.get("tasks") or []
        ]
        rows.append([suite.title, None, interval(suite.result.get("score")), None])
    headers = ["Task", "Items", "Score, % [95 % interval]", "Format failures"]
    return table(headers, rows, right_aligned=(1, 2, 3))
