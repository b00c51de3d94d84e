"""What became of the answers: right, wrong, without a readable answer, or faulty, by kind."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tiltyard_eval.pieces.tables import Column, table
from tiltyard_eval.pieces.text import count, html, percent
from tiltyard_eval.results import TaskResult

FORMAT: Final = "format"
ANY_FAULT: Final = "any"  # of a hidden suite kinds are not told, because the server chooses them

# As in docs/reference/evaluator.md. A kind that a later evaluator adds is shown by its name.
FAULT_WORDS: Final[Mapping[str, str]] = {
    "invalid_json": "was not JSON",
    "wrong_shape": "lacked the list of answers or had a wrong field",
    "wrong_count": "had more or fewer entries than questions",
    "bad_index": "had choices without an index, or with a wrong one",
    "invalid_text": "had a text that is none",
    "invalid_logprob": "had a log-probability that is none",
    "no_start_token": "scored a text from its start",
    "content_type": "was not application/json",
    "content_encoding": "was compressed",
    "redirect": "was a redirect",
    "http_status": "had another status than 200",
    "invalid_http": "was no well-formed HTTP",
    "timeout": "was not complete in time",
    "connection": "broke off",
    ANY_FAULT: "were faulty",
}


@dataclass(frozen=True)
class Outcome:
    """How many answers ended so; `group` is `right`, `partial`, `wrong`, `readable`, `format` or `fault`."""

    group: str
    kind: str
    words: str
    number: int


def outcomes(tasks: Sequence[TaskResult], items: Iterable[tuple[float, str | None]] | None = None) -> list[Outcome]:
    """All answers by what became of them, none twice.

    Args:
        tasks: With their failures by kind.
        items: Score and failure of each item; without them right and wrong answers are not told apart.
    """
    faults: Counter[str] = Counter()
    for task in tasks:
        faults.update(task.item_failures)
    unreadable = sum(task.format_failures for task in tasks)
    readable = sum(task.items for task in tasks) - unreadable - sum(faults.values())
    if items is None:
        found = [Outcome("readable", "", "Scored as right or wrong", readable)]
    else:
        groups = Counter(_group(score) for score, failure in items if failure is None)
        words = {"right": "Right", "partial": "Partly right", "wrong": "Wrong"}
        found = [Outcome(group, "", words[group], groups[group]) for group in words]
    found.append(Outcome("format", FORMAT, "No readable answer", unreadable))
    found += [
        Outcome("fault", kind, f"Faulty: the response {FAULT_WORDS.get(kind, 'was not usable')}", number)
        if kind != ANY_FAULT
        else Outcome("fault", "", "Faulty responses", number)
        for kind, number in faults.most_common()
    ]
    return [one for one in found if one.number or one.group in {"right", "wrong", "format", "readable"}]


def _group(score: float) -> str:
    return "right" if score >= 1 else "partial" if score > 0 else "wrong"


def outcome_figure(found: Sequence[Outcome]) -> str:
    """One bar of all answers, and the table that says the same in numbers."""
    total = sum(one.number for one in found)
    if not total:
        return ""
    rows = (
        [
            f'<span><span class="key key-{one.group}"></span>{html(one.words)}</span>'
            + (f' <small class="under"><code>{html(one.kind)}</code></small>' if one.kind else ""),
            count(one.number),
            percent(one.number / total),
        ]
        for one in found
    )
    columns = [Column("Outcome"), Column("Answers", is_number=True), Column("Share, %", is_number=True)]
    return f"{_bar(found, total)}{table(columns, rows, 'Answers by outcome')}"


def _bar(found: Sequence[Outcome], total: int) -> str:
    parts, left = [], 0.0
    for one in found:
        width = 1000 * one.number / total
        parts.append(f'<rect class="fill-{one.group}" x="{left:.2f}" width="{width:.2f}" height="14"/>')
        left += width
    return (
        '<svg class="stack-bar" viewBox="0 0 1000 14" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f"{''.join(parts)}</svg>"
    )
