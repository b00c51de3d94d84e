"""A comparison as one self-contained HTML file, without any script; see `report` for how hostile text is kept text."""

from itertools import islice
from typing import Final

from tiltyard_eval.comparison import Comparison
from tiltyard_eval.pieces.flips import compared_tasks, difference_card, flipped_item
from tiltyard_eval.pieces.text import count, html
from tiltyard_eval.report import page

MAX_FLIPPED: Final = 2_000


def render_comparison(found: Comparison, name_a: str, name_b: str, *, with_hidden: bool = False) -> str:
    """The comparison as an HTML document; `with_hidden` shows the items of a hidden suite as well."""
    unlike = (
        f'<p class="muted">The runs differ in more than the entry: {html(", ".join(found.unlike))}.</p>'
        if found.unlike
        else ""
    )
    card = difference_card(found.summary, name_a, name_b, {"Other answers": count(found.different_answers)})
    tasks = compared_tasks(found.summary, name_a, name_b)
    return page(
        kind="Comparison",
        title=f"{name_b} against {name_a}",
        visibility=found.suite.visibility,
        subtitle=f"{found.suite.title} · version {found.suite.version} · {count(found.summary.items)} items",
        body=(
            f"<section>{card}{unlike}</section>"
            f'<section aria-labelledby="tasks"><h2 id="tasks">Tasks</h2>{tasks}</section>'
            f"{_flipped(found, name_a, name_b, is_shown=with_hidden or found.suite.visibility != 'hidden')}"
        ),
        script=None,
    )


def _flipped(found: Comparison, name_a: str, name_b: str, *, is_shown: bool) -> str:
    heading = (
        f'<section aria-labelledby="flipped"><h2 id="flipped">Items that changed: {count(len(found.flipped))}</h2>'
    )
    if not found.flipped:
        return f'{heading}<p class="muted">Every item has the same score in both.</p></section>'
    if not is_shown:
        return f'{heading}<p class="muted">The items of a hidden suite are not shown.</p></section>'
    titles = {task.name: task.title for task in found.summary.tasks}
    items = "".join(
        flipped_item(pair, titles.get(pair.task, pair.task), name_a, name_b)
        for pair in islice(found.flipped, MAX_FLIPPED)
    )
    rest = len(found.flipped) - MAX_FLIPPED
    more = f'<p class="muted">{count(rest)} more are not shown.</p>' if rest > 0 else ""
    return f"{heading}{items}{more}</section>"
