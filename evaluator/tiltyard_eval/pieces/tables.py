"""Tables that become cards on a phone, and those of a result's tasks and metrics."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tiltyard_eval.pieces.intervals import interval
from tiltyard_eval.pieces.text import count, html
from tiltyard_eval.results import TaskResult


@dataclass(frozen=True)
class Column:
    """A column's heading as text, and whether it holds numbers."""

    title: str
    is_number: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of cells that are HTML already; the first of each row is its heading."""
    heads = "".join(f'<th scope="col"{_side(column)}>{html(column.title)}</th>' for column in columns)
    body = "".join(f"<tr>{_cells(columns, row)}</tr>" for row in rows)
    title = f'<caption class="visually-hidden">{html(caption)}</caption>' if caption else ""
    return (
        f'<div class="table-scroll"><table class="data cards">{title}<thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(columns: Sequence[Column], row: Sequence[str]) -> str:
    first, *rest = row
    cells = (
        f'<td data-label="{html(column.title)}"{_side(column)}>{cell}</td>'
        for column, cell in zip(columns[1:], rest, strict=True)
    )
    return f'<th scope="row" class="name">{first}</th>{"".join(cells)}'


def _side(column: Column) -> str:
    return ' class="right"' if column.is_number else ""


def task_table(tasks: Sequence[TaskResult], tone: str) -> str:
    """Each task with what it counts, what went wrong, and its score with the interval; ties where there are any."""
    has_ties = any(task.ties for task in tasks)
    columns = [
        Column("Task"),
        Column("Family"),
        Column("Questions", is_number=True),
        Column("Weight", is_number=True),
        Column("No readable answer", is_number=True),
        Column("Faulty answers", is_number=True),
        *([Column("Ties", is_number=True)] if has_ties else []),
        Column("Score, %"),
    ]
    rows = (
        [
            f'{html(task.title)} <small class="under">{html(task.name)}</small>',
            html(task.family),
            count(task.items),
            f"{task.weight:g}",
            count(task.format_failures),
            count(sum(task.item_failures.values())),
            *([count(task.ties)] if has_ties else []),
            interval(task.score, task.low, task.high, tone),
        ]
        for task in tasks
    )
    note = (
        '<p class="help">A tie is an item whose score differs from lm-eval’s, because several choices had the highest'
        " log-likelihood: they share the credit, where lm-eval takes the first.</p>"
        if has_ties
        else ""
    )
    return table(columns, rows, "Tasks") + note


def metrics_table(tasks: Sequence[TaskResult]) -> str:
    """lm-eval's own metrics of each task under a fold; nothing where there are none."""
    rows = [
        [html(task.title), f"<code>{html(metric)}</code>", html(name or "none"), f"{value:.6g}"]
        for task in tasks
        for metric, name, value in (_split(key, value) for key, value in task.metrics.items())
    ]
    if not rows:
        return ""
    columns = [Column("Task"), Column("Metric"), Column("Filter"), Column("Value", is_number=True)]
    return (
        '<details class="disclosure"><summary>lm-eval’s own metrics</summary><div>'
        '<p class="help">As lm-eval computes them over the same answers. A task with a faulty answer has none.</p>'
        f"{table(columns, rows, 'Metrics of lm-eval')}</div></details>"
    )


def _split(key: str, value: float) -> tuple[str, str, float]:
    metric, _, name = key.partition(",")
    return metric, name, value
