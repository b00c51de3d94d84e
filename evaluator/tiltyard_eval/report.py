"""One self-contained HTML file that shows a result: score, tasks, failures, samples, manifest. Standard library only.

Everything the model wrote is hostile. It reaches the page in two ways: escaped by `html.escape`, or as JSON in a block
that the viewer's script puts into text nodes. A content security policy allows this file's own style and script, by
hash, and nothing else, so that even a mistake in escaping would run no code and load nothing.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any, Final

from tiltyard_eval.results import Result, TaskResult

MAX_SAMPLES: Final = 10_000
_SAMPLE_FIELDS: Final = ("task", "index", "prompt", "answer", "expected", "extracted", "score", "failure")


def render_report(result: Result, samples: Iterable[dict[str, Any]], *, with_hidden: bool = False) -> str:
    """The report as an HTML document.

    Args:
        result: What `load_result` returned.
        samples: Rows of `samples.jsonl`; the first `MAX_SAMPLES` are shown.
        with_hidden: Show the samples of a hidden suite as well. Without it they are not in the file at all.
    """
    hidden = result.suite is not None and result.suite.visibility == "hidden"
    shown = [] if hidden and not with_hidden else [_viewed(row) for row in islice(samples, MAX_SAMPLES)]
    style, viewer = _asset("style.css"), _asset("viewer.js")
    return Template(_asset("page.html")).substitute(
        policy=_policy(style, viewer),
        style=style,
        title=escape(result.suite.title if result.suite else "Evaluation"),
        visibility=escape(result.suite.visibility if result.suite else "unknown"),
        subtitle=_subtitle(result),
        headline=_headline(result),
        tasks=_tasks(result.tasks),
        failures=_failures(result.tasks),
        samples=_samples(shown, hidden=hidden and not with_hidden),
        manifest=_manifest(result),
        script=f"<script>{viewer}</script>" if shown else "",
    )


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a `samples.jsonl`; none when the file does not exist, as after a failed run.

    Raises:
        ValueError: A line is not a JSON object.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a sample is not a JSON object")
            yield row


def _asset(name: str) -> str:
    return files("tiltyard_eval").joinpath("report_page", name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _viewed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _SAMPLE_FIELDS}


def _subtitle(result: Result) -> str:
    parts = [f"version {result.suite.version}"] if result.suite else []
    parts += [f"adapter {result.adapter}", result.execution_mode or "not begun", result.timing.started_at]
    return escape(" · ".join(parts))


def _headline(result: Result) -> str:
    facts = {
        "Items": sum(task.items for task in result.tasks),
        "Format failures": sum(task.format_failures for task in result.tasks),
        "Faulty answers": sum(sum(task.item_failures.values()) for task in result.tasks),
        "Requests": f"{result.timing.requests} ({result.timing.retries} again)",
        "Latency, median": _seconds(result.timing.latency_p50_s),
        "Latency, 95 %": _seconds(result.timing.latency_p95_s),
        "Wall time": _seconds(result.timing.wall_s),
    }
    if result.failure is not None:
        reason = escape(result.failure.reason.replace("_", " "))
        return f'<section class="failed"><h2>Failed: {reason}</h2><p>{escape(result.failure.message)}</p></section>'
    assert result.score is not None, "load_result checks that a scored result has a score"  # noqa: S101
    score = result.score
    listed = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items()
    )
    return (
        f'<section class="headline"><div><div class="score">{score.value * 100:.1f}<small> %</small></div>'
        f'<p class="muted">95&nbsp;% interval {_percent(score.low)} to {_percent(score.high)}</p>'
        f"{_bar(score.value, score.low, score.high)}</div>"
        f'<dl class="facts">{listed}</dl></section>'
    )


def _tasks(tasks: tuple[TaskResult, ...]) -> str:
    if not tasks:
        return ""
    head = (
        '<th>Task</th><th class="number">Score</th><th>0 to 100&nbsp;%</th><th class="number">Items</th>'
        '<th class="number">Weight</th><th class="number">Format failures</th>'
    )
    rows = "".join(_task_row(task) for task in tasks)
    return f'<section><h2>Tasks</h2><div class="scroll"><table><tr>{head}</tr>{rows}</table></div></section>'


def _task_row(task: TaskResult) -> str:
    return (
        f"<tr><td>{escape(task.title)}<small>{escape(task.name)} · {escape(task.family)}</small></td>"
        f'<td class="number">{_percent(task.score)}<small>{_percent(task.low)} – {_percent(task.high)}</small></td>'
        f'<td>{_bar(task.score, task.low, task.high)}</td><td class="number">{task.items}</td>'
        f'<td class="number">{task.weight:g}</td><td class="number">{task.format_failures}</td></tr>'
    )


def _bar(value: float, low: float, high: float) -> str:
    """A track from 0 to 1 with the interval as a band and the value as a mark."""
    label = escape(f"{_percent(value)}, interval {_percent(low)} to {_percent(high)}")
    return (
        f'<svg viewBox="0 0 200 14" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f'<rect class="track" y="5" width="200" height="4"/>'
        f'<rect class="band" x="{low * 200:.2f}" y="3" width="{(high - low) * 200:.2f}" height="8"/>'
        f'<rect class="mark" x="{min(197.5, max(0.0, value * 200 - 1.25)):.2f}" width="2.5" height="14"/></svg>'
    )


def _failures(tasks: tuple[TaskResult, ...]) -> str:
    kinds: Counter[str] = Counter()
    for task in tasks:
        kinds.update(task.item_failures)
        kinds["format"] += task.format_failures
    rows = "".join(
        f'<tr><td>{escape(kind.replace("_", " "))}</td><td class="number">{count}</td></tr>'
        for kind, count in kinds.most_common()
        if count
    )
    return f'<section><h2>Failures by kind</h2><table class="kinds">{rows}</table></section>' if rows else ""


def _samples(rows: list[dict[str, Any]], *, hidden: bool) -> str:
    if hidden:
        return '<section><h2>Items</h2><p class="muted">The items of a hidden suite are not shown.</p></section>'
    if not rows:
        return ""
    # "<" is the one character by which a text could leave the block; everything beyond ASCII is escaped as well.
    data = json.dumps(rows, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    return (
        '<section><h2>Items</h2><div class="controls">'
        '<input id="sample-search" type="search" placeholder="Search prompts and answers" aria-label="Search">'
        '<select id="sample-task" aria-label="Task"><option value="">All tasks</option></select>'
        '<select id="sample-outcome" aria-label="Outcome"><option value="">All outcomes</option></select></div>'
        '<p class="muted" id="sample-count" aria-live="polite"></p><div id="sample-list"></div>'
        '<button id="sample-more" type="button" hidden>Show more</button>'
        f'<script type="application/json" id="sample-data">{data}</script></section>'
    )


def _manifest(result: Result) -> str:
    document = {
        "identity": result.identity,
        "settings": result.settings,
        "versions": result.versions,
    }
    text = escape(json.dumps(document, indent=2, ensure_ascii=True))
    return (
        '<section><details class="manifest"><summary>Manifest</summary>'
        f"<p>Reproducible identity: <code>{escape(result.repro_hash)}</code></p><pre>{text}</pre></details></section>"
    )


def _percent(share: float) -> str:
    return f"{share * 100:.1f}\u202f%"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
