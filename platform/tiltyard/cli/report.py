"""The local report: one HTML file that needs no network and runs no script."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

from tiltyard.cli.results import Evaluation, SuiteReport
from tiltyard.cli.tables import interval

SAMPLES_PER_TASK_MAX: Final = 200  # keeps the page light; samples.jsonl beside it has all

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.score { font-size: 2.5rem; font-weight: 600; }
.muted { opacity: .7; }
.wrong { background: #c0392b1f; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
code { overflow-wrap: anywhere; }
summary { cursor: pointer; padding: .3rem 0; }
"""


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write the report to `path`. Every text in it is escaped: answers are hostile."""
    with path.open("w", encoding="utf-8", errors="replace") as file:  # answers may hold lone surrogates
        file.writelines(_page(evaluation))


def _page(evaluation: Evaluation) -> Iterator[str]:
    title = escape(f"Evaluation of {evaluation.target}")
    yield '<!doctype html><html lang="en"><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # Belt and braces: even a hole in the escaping could neither run a script nor load anything.
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
    if evaluation.failure_reason:
        yield f"<h2>Verdict: {escape(evaluation.failure_reason)}</h2><p>{escape(evaluation.failure_message)}</p>"
    if evaluation.image_digest:
        yield f"<p class=muted>Image <code>{escape(evaluation.image_digest)}</code></p>"
    for suite in evaluation.suites:
        yield from _suite(suite)


def _suite(suite: SuiteReport) -> Iterator[str]:
    yield f"<h2>{escape(suite.title)}</h2>"
    if not suite.is_scored:
        failure = suite.result.get("failure") or {}
        yield f"<p>Not scored: {escape(str(failure.get('message', '')))}</p>"
        return
    yield f"<p class=score>{escape(interval(suite.result.get('score')) or '')} %</p>"
    yield f"<p class=muted>Reproduction hash <code>{escape(str(suite.result.get('repro_hash')))}</code></p>"
    yield "<table><tr><th>Task<th>Family<th class=number>Items<th class=number>Score, % [95 %]"
    yield "<th class=number>Format failures</tr>"
    tasks = [task for task in suite.result.get("tasks") or [] if isinstance(task, dict)]
    for task in tasks:
        cells = [task.get("items"), interval(task), task.get("format_failures")]
        yield f"<tr><td>{escape(str(task.get('title')))}<td>{escape(str(task.get('family')))}"
        yield "".join(f"<td class=number>{escape(str(cell))}" for cell in cells) + "</tr>"
    yield "</table>"
    yield from _samples(suite, {str(task.get("name")): str(task.get("title")) for task in tasks})


def _samples(suite: SuiteReport, titles: dict[str, str]) -> Iterator[str]:
    by_task: dict[str, list[dict[str, Any]]] = {name: [] for name in titles}
    for sample in suite.samples():
        by_task.setdefault(str(sample.get("task")), []).append(sample)
    for name, samples in by_task.items():
        shown = samples[:SAMPLES_PER_TASK_MAX]
        yield f"<details><summary>{escape(titles.get(name, name))}: {len(shown)} of {len(samples)} items</summary>"
        yield "<table><tr><th>Prompt<th>Answer<th>Expected<th class=number>Score</tr>"
        for sample in shown:
            yield "<tr>" if sample.get("score") else "<tr class=wrong>"
            yield "".join(f"<td><pre>{escape(_text(sample, key))}</pre>" for key in ("prompt", "answer", "expected"))
            yield f"<td class=number>{escape(str(sample.get('score')))}</tr>"
        yield "</table></details>"


def _text(sample: dict[str, Any], key: str) -> str:
    if key == "answer" and sample.get("failure"):
        return f"({sample['failure']}) {sample.get('answer') or ''}"
    value = sample.get(key)
    return value if isinstance(value, str) else str(value)
