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
    """{"value" or "score", "low", "high"} in 0..1 as "42.7 [40.1, 45.2]"."""
    if not isinstance(score, Mapping):
        return None
    value = percent(score.get("value", score.get("score")))
    return value and f"{value} [{percent(score.get('low'))}, {percent(score.get('high'))}]"


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
    """The leaderboard, best first."""
    rows = [
        [
            row.get("rank"),
            f"{row.get('name')} (baseline)" if row.get("is_baseline") else row.get("name"),
            row.get("owner"),
            *(interval(row.get(key)) for key in ("score", "open", "hidden", "gap")),
        ]
        for row in board.get("entries") or []
    ]
    headers = ["#", "Name", "By", "Score, %", "Open, %", "Hidden, %", "Gap"]
    return table(headers, rows, right_aligned=(0, 3, 4, 5, 6))


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
