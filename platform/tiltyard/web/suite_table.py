"""The tasks of a competition's active suites side by side, and sample questions of the open ones."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tiltyard.competitions.models import Suite

_LINE_BYTES_MAX = 64 * 1024


@dataclass(frozen=True)
class TaskRow:
    """One task; `items[i]` is how many questions the i-th suite asks of it, or None when it has none."""

    title: str
    items: list[int | None]


@dataclass(frozen=True)
class Family:
    name: str
    rows: list[TaskRow]


@dataclass(frozen=True)
class Question:
    task_title: str
    prompt: str
    answer: str


def families(suites: list[Suite]) -> list[Family]:
    """Tasks grouped by family, in the order in which the suites name them."""
    grouped: dict[str, dict[str, list[int | None]]] = {}
    for place, suite in enumerate(suites):
        for task in suite.tasks:
            family = grouped.setdefault(str(task["family"]), {})
            counts = family.setdefault(str(task["title"]), [None] * len(suites))
            counts[place] = (counts[place] or 0) + int(task["items"])
    return [
        Family(name, [TaskRow(title, counts) for title, counts in tasks.items()]) for name, tasks in grouped.items()
    ]


def ranking_shares(suites: list[Suite]) -> list[float]:
    """How much each suite counts in the ranking score, 0 to 1, in the order given."""
    total = sum(suite.weight for suite in suites)
    return [suite.weight / total if total else 0.0 for suite in suites]


def sample_questions(suites: Iterable[Suite]) -> list[Question]:
    """The first question of every task of the open suites; a hidden suite's files are never read."""
    questions = []
    for suite in suites:
        if suite.is_hidden:
            continue
        for task in suite.tasks:
            first = _first_item(suite.directory / "data" / f"{Path(str(task['name'])).name}.jsonl")
            if first is not None:
                questions.append(Question(str(task["title"]), *first))
    return questions


def _first_item(path: Path) -> tuple[str, str] | None:
    """(prompt, answer) of the first line; None when the file is missing or unreadable."""
    try:
        with path.open("rb") as file:
            item = json.loads(file.readline(_LINE_BYTES_MAX))
        return str(item["prompt"]), str(item["answer"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
