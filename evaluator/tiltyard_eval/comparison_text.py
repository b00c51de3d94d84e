"""A comparison on a terminal and as JSON."""

from dataclasses import asdict
from typing import Any

from tiltyard_eval.comparison import Comparison
from tiltyard_eval.pieces.flips import verdict
from tiltyard_eval.pieces.text import percent, signed, visible
from tiltyard_eval.stats import Difference


def comparison_document(found: Comparison) -> dict[str, Any]:
    """The figures and which items flipped, without any text of theirs."""
    summary = found.summary
    return {
        "score_a": summary.score_a,
        "score_b": summary.score_b,
        "difference": asdict(summary.difference),
        "tasks": [asdict(task) for task in summary.tasks],
        "items": summary.items,
        "better": summary.better,
        "worse": summary.worse,
        "different_answers": found.different_answers,
        "unlike": list(found.unlike),
        "flipped": [{"task": pair.task, "index": pair.index, "change": pair.change} for pair in found.flipped],
    }


def comparison_text(found: Comparison, name_a: str, name_b: str) -> str:
    """Lines for people; nothing in them controls the terminal."""
    summary = found.summary
    rows = [("", name_a[:12], name_b[:12], "difference, points [95 % interval]")]
    rows += [
        (visible(task.name), percent(task.score_a), percent(task.score_b), _points(task.difference))
        for task in summary.tasks
    ]
    rows.append(("score", percent(summary.score_a), percent(summary.score_b), _points(summary.difference)))
    lines = [f"{name:24} {a:>12} {b:>12}   {difference}" for name, a, b, difference in rows]
    lines += [
        "",
        verdict(summary.difference, name_a, name_b),
        f"Of {summary.items} items {summary.better} got better and {summary.worse} worse;"
        f" {found.different_answers} answers differ.",
    ]
    if found.unlike:
        lines.append(f"The runs differ in more than the entry: {', '.join(found.unlike)}.")
    return "\n".join(visible(line) for line in lines)


def _points(found: Difference) -> str:
    return f"{signed(found.value)} [{signed(found.low)} to {signed(found.high)}]"
