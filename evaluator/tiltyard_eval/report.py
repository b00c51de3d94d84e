"""One self-contained HTML file that shows a result: score, tasks, answers, latency, items, manifest. Standard library.

Everything the model wrote is hostile. It reaches the page in two ways: escaped by the parts in `pieces`, or as JSON in
blocks that the viewer's script puts into text nodes. A content security policy allows this file's own styles and
script, by hash, and nothing else, so that even a mistake in escaping would run no code and load nothing.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any, Final

from tiltyard_eval.pieces.latency import histogram_of, latency_figure
from tiltyard_eval.pieces.outcomes import outcome_figure, outcomes
from tiltyard_eval.pieces.tables import metrics_table, task_table
from tiltyard_eval.pieces.text import clipped, count, html, percent, seconds
from tiltyard_eval.results import Result
from tiltyard_eval.sample_rows import SampleRow, disagreements

MAX_SAMPLES: Final = 10_000
MAX_TEXT_CHARS: Final = 50_000  # of one prompt or answer: beyond it a browser lays out for seconds
MAX_VIEWER_CHARS: Final = 128 << 20  # of all texts together
STYLES: Final = (*(f"static/tiltyard/css/{name}.css" for name in ("tokens", "parts", "figures")), "page.css")
_BLOCK_CHARS: Final = 1 << 20  # the script reads one block at a time, so that the page answers in between


def render_report(result: Result, samples: Iterable[SampleRow], *, with_hidden: bool = False) -> str:
    """The report as an HTML document.

    Args:
        result: What `load_result` returned.
        samples: Rows of `samples.jsonl`; the first `MAX_SAMPLES` are shown, all are checked against the result.
        with_hidden: Show the samples of a hidden suite as well. Without it they are not in the file at all.
    """
    rows = list(samples)
    is_hidden = result.suite is not None and result.suite.visibility == "hidden"
    is_secret = is_hidden and not with_hidden
    viewer = _viewer(result, rows) if rows and not is_secret else ""
    return page(
        kind="Evaluation report",
        title=result.suite.title if result.suite else "Evaluation",
        visibility=result.suite.visibility if result.suite else "unknown",
        subtitle=_subtitle(result),
        body="".join(
            [
                _warning(disagreements(result, rows)) if rows else "",
                _headline(result),
                _tasks(result, "hidden" if is_hidden else "open"),
                _answers(result, rows),
                _latency(result, rows),
                viewer or _no_items(is_secret),
                _manifest(result),
            ]
        ),
        script=asset("viewer.js") if viewer else None,
    )


def page(*, kind: str, title: str, visibility: str, subtitle: str, body: str, script: str | None) -> str:
    """A document of its own: `body` is HTML already, the other texts are not, and nothing but `script` runs."""
    style = "".join(asset(name) for name in STYLES)
    return Template(asset("page.html")).substitute(
        policy=content_policy(style, script),
        style=style,
        kind=html(kind),
        title=html(title),
        visibility=html(visibility),
        subtitle=html(subtitle),
        body=body,
        script=f"<script>{script}</script>" if script else "",
    )


def _subtitle(result: Result) -> str:
    parts = [f"version {result.suite.version}"] if result.suite else []
    parts += [f"adapter {result.adapter}", result.execution_mode or "not begun", result.timing.started_at]
    return " · ".join(parts)


def _warning(said: list[str]) -> str:
    if not said:
        return ""
    listed = "".join(f"<li>{html(clipped(one, 300))}</li>" for one in said[:20])
    more = f"<li>and {len(said) - 20} more</li>" if len(said) > 20 else ""
    return (
        '<section class="alert error" role="alert"><h2>Result and samples disagree</h2><p>One of the two files was'
        f" changed or damaged, so do not rely on the figures below.</p><ul>{listed}{more}</ul></section>"
    )


def _headline(result: Result) -> str:
    if result.failure is not None:
        reason = html(result.failure.reason.replace("_", " "))
        return (
            f'<section class="alert error"><h2>Failed: {reason}</h2>'
            f"<p>{html(clipped(result.failure.message, 4000))}</p></section>"
        )
    assert result.score is not None, "load_result checks that a scored result has a score"  # noqa: S101
    score = result.score
    facts = {
        "Items": count(sum(task.items for task in result.tasks)),
        "No readable answer": count(sum(task.format_failures for task in result.tasks)),
        "Faulty answers": count(sum(sum(task.item_failures.values()) for task in result.tasks)),
        "Requests": f"{count(result.timing.requests)} ({count(result.timing.retries)} again)",
        "Wall time": seconds(result.timing.wall_s),
    }
    return (
        '<section class="card headline"><div>'
        f'<p class="score">{percent(score.value)}<small> %</small></p>'
        f'<p class="muted">95&nbsp;% interval {percent(score.low)} – {percent(score.high)}</p></div>'
        f"{figures(facts)}</section>"
    )


def figures(facts: dict[str, str]) -> str:
    """Names with values, both plain text, side by side."""
    listed = "".join(f"<div><dt>{html(name)}</dt><dd>{html(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="figures">{listed}</dl>'


def _tasks(result: Result, tone: str) -> str:
    if not result.tasks:
        return ""
    return (
        f'<section aria-labelledby="tasks"><h2 id="tasks">Tasks</h2>{task_table(result.tasks, tone)}'
        f"{metrics_table(result.tasks)}</section>"
    )


def _answers(result: Result, rows: list[SampleRow]) -> str:
    items = [(row.score, row.failure) for row in rows]
    found = outcomes(result.tasks, items if len(items) == sum(task.items for task in result.tasks) else None)
    figure = outcome_figure(found)
    return f'<section aria-labelledby="answers"><h2 id="answers">Answers</h2>{figure}</section>' if figure else ""


def _latency(result: Result, rows: list[SampleRow]) -> str:
    if result.timing.latency_histogram is not None:
        figure = latency_figure(result.timing, result.timing.latency_histogram, "requests")
    else:
        figure = latency_figure(result.timing, histogram_of(row.latency_s or 0.0 for row in rows), "items")
    if not figure:
        return ""
    return f'<section aria-labelledby="latency"><h2 id="latency">Latency</h2><div class="card">{figure}</div></section>'


def _no_items(is_secret: bool) -> str:
    if not is_secret:
        return ""
    return '<section><h2>Items</h2><p class="muted">The items of a hidden suite are not shown.</p></section>'


def _viewer(result: Result, rows: list[SampleRow]) -> str:
    shown = list(_within(rows))
    titles = {task.name: task.title for task in result.tasks}
    names = sorted({row.task for row in shown})
    kinds = sorted({row.failure for row in shown if row.failure is not None})
    about = {"tasks": [[name, titles.get(name, name)] for name in names], "kinds": kinds, "total": len(shown)}
    task_of = {name: number for number, name in enumerate(names)}
    encoded = (_encoded([task_of[row.task], *_fields(row)]) for row in shown)
    blocks = "".join(
        f'<script type="application/json" class="sample-block">[{block}]</script>' for block in _blocks(encoded)
    )
    left_out = (
        f'<p class="help">The first {count(len(shown))} of {count(len(rows))} items; samples.jsonl has all.</p>'
        if len(shown) < len(rows)
        else ""
    )
    return (
        f'<section aria-labelledby="items"><h2 id="items">Items</h2>{left_out}{asset("viewer.html")}'
        f'<script type="application/json" id="sample-about">{_encoded(about)}</script>{blocks}</section>'
    )


def _within(rows: Iterable[SampleRow]) -> Iterator[SampleRow]:
    """As many as a browser bears."""
    chars = 0
    for row in islice(rows, MAX_SAMPLES):
        chars += sum(min(len(text), MAX_TEXT_CHARS) for text in (row.prompt, row.answer, row.expected, row.extracted))
        if chars > MAX_VIEWER_CHARS:
            return
        yield row


def _fields(row: SampleRow) -> list[Any]:
    """index, score, failure, latency in s, prompt, answer, expected, extracted (null when it is the answer)."""
    prompt, answer, expected, extracted = (
        clipped(text, MAX_TEXT_CHARS) for text in (row.prompt, row.answer, row.expected, row.extracted)
    )
    latency = None if row.latency_s is None else round(row.latency_s, 4)
    other = None if extracted == answer else extracted
    return [row.index, row.score, row.failure, latency, prompt, answer, expected, other]


def _blocks(encoded: Iterable[str]) -> Iterator[str]:
    """The rows joined to blocks of about equal length."""
    block: list[str] = []
    chars = 0
    for one in encoded:
        block.append(one)
        chars += len(one)
        if chars >= _BLOCK_CHARS:
            yield ",".join(block)
            block, chars = [], 0
    if block:
        yield ",".join(block)


def _encoded(value: Any) -> str:
    # "<" is the one character by which a text could leave the block; everything beyond ASCII is escaped as well.
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _manifest(result: Result) -> str:
    document = {"identity": result.identity, "settings": result.settings, "versions": result.versions}
    text = html(clipped(json.dumps(document, indent=2, ensure_ascii=True), 200_000))
    suite = f"<p>Suite: <code>{html(result.suite.sha256)}</code></p>" if result.suite else ""
    return (
        '<section><details class="disclosure"><summary>Manifest</summary><div>'
        f"<p>Reproducible identity: <code>{html(result.repro_hash)}</code></p>{suite}"
        f'<pre tabindex="0" aria-label="Manifest">{text}</pre></div></details></section>'
    )


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a `samples.jsonl` as they are; none when the file does not exist, as after a failed run.

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


def asset(name: str) -> str:
    """A file of the report's page: its template, style or script."""
    return files("tiltyard_eval").joinpath("report_page", name).read_text(encoding="utf-8")


def content_policy(style: str, script: str | None = None) -> str:
    """The content security policy that allows this style and this script, by hash, and nothing else."""
    allowed = f"'{_hash(script)}'" if script is not None else "'none'"
    return f"default-src 'none'; style-src '{_hash(style)}'; script-src {allowed}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
