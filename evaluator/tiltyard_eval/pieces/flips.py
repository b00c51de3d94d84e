"""B against A: the verdict in a sentence, the tasks side by side, and the items that changed."""

from typing import TYPE_CHECKING

from tiltyard_eval.pieces.intervals import difference
from tiltyard_eval.pieces.tables import Column, table
from tiltyard_eval.pieces.text import clipped, html, percent, signed

if TYPE_CHECKING:  # they import NumPy, and a fragment needs none
    from tiltyard_eval.comparison import Pair, Summary
    from tiltyard_eval.stats import Difference

_TEXT_CHARS_MAX = 20_000


def verdict(found: "Difference", name_a: str, name_b: str) -> str:
    """One sentence, plain text, that says what the difference shows."""
    if found.low <= 0 <= found.high:
        return f"The suite does not separate {name_b} from {name_a}: the interval of the difference holds zero."
    word = "better" if found.value > 0 else "worse"
    return f"{name_b} is {word} than {name_a}: the interval of the difference does not hold zero."


def p_value(found: "Difference") -> str:
    """The two-sided p-value as text."""
    return f"{found.p_value:.3f}" if found.p_value >= 0.001 else "< 0.001"


def difference_card(found: "Summary", name_a: str, name_b: str, more: dict[str, str]) -> str:
    """The difference large, and beside it both scores, what changed, and `more`, names with values as plain text."""
    facts = {
        name_a: f"{percent(found.score_a)} %",
        name_b: f"{percent(found.score_b)} %",
        "Items better": str(found.better),
        "Items worse": str(found.worse),
        "p-value, two-sided": p_value(found.difference),
    } | more
    listed = "".join(f"<div><dt>{html(name)}</dt><dd>{html(fact)}</dd></div>" for name, fact in facts.items())
    one = found.difference
    return (
        f'<div class="card headline"><div><p class="score">{signed(one.value)}<small> points</small></p>'
        f'<p class="muted">95&nbsp;% interval {signed(one.low)} to {signed(one.high)}</p></div>'
        f'<dl class="figures">{listed}</dl></div><p class="verdict-line">{html(verdict(one, name_a, name_b))}</p>'
    )


def compared_tasks(found: "Summary", name_a: str, name_b: str) -> str:
    """Both scores of every task and their difference with its interval."""
    columns = [
        Column("Task"),
        Column(f"{name_a}, %", is_number=True),
        Column(f"{name_b}, %", is_number=True),
        Column("Difference, points"),
    ]
    rows = (
        [
            f'{html(task.title)} <small class="under">{html(task.name)}</small>',
            percent(task.score_a),
            percent(task.score_b),
            difference(task.difference.value, task.difference.low, task.difference.high),
        ]
        for task in found.tasks
    )
    return table(columns, rows, "Tasks compared")


def flipped_item(pair: "Pair", title: str, name_a: str, name_b: str) -> str:
    """One item whose score changed: its question, what was expected, and both answers. Texts are plain."""
    tone, word = ("good", "Better") if pair.change > 0 else ("bad", "Worse")
    texts = [
        ("Prompt", pair.prompt),
        ("Expected", pair.expected),
        (f"{name_a}: {pair.score_a:.2g}", pair.answer_a),
        (f"{name_b}: {pair.score_b:.2g}", pair.answer_b),
    ]
    blocks = "".join(f"<div><dt>{html(name)}</dt><dd>{_text(name, text)}</dd></div>" for name, text in texts)
    return (
        f'<article class="card sample"><header><h3>{html(title)} <span class="muted">#{pair.index}</span></h3>'
        f'<span class="chip {tone}">{word}</span></header><dl class="texts-four">{blocks}</dl></article>'
    )


def _text(name: str, text: str) -> str:
    if not text:
        return '<span class="muted">(empty)</span>'
    return f'<pre tabindex="0" aria-label="{html(name)}">{html(clipped(text, _TEXT_CHARS_MAX))}</pre>'
