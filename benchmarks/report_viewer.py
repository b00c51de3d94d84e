"""How fast the report of 10,000 items with long prompts opens, searches and scrolls, in headless Chromium.

    python benchmarks/report_viewer.py [--items 10000] [--prompt-chars 4000]

The items are English-like texts drawn with a seed, so that searching cannot stop early. A keystroke's time runs from
the key's event to the first frame after it (what a person feels), and separately to the list that is filtered.
"""

import argparse
import json
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

REPOSITORY_DIR = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY_DIR / "tests" / "support"))

from eval_results import example_result  # noqa: E402

from tiltyard_eval.report import render_report  # noqa: E402
from tiltyard_eval.results import Score  # noqa: E402
from tiltyard_eval.sample_rows import SampleRow  # noqa: E402

WORDS = ("the", "river", "stone", "counts", "apples", "Anna", "gives", "seven", "more", "which", "of", "these", "under")
NEEDLES = ("which of these", "item-9123", "zzz", "Anna gives seven more", "e")

PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1"
# Types a text letter by letter; resolves to [ms to the next frame, ms to the filtered list] of every letter.
TYPE = """async (needle) => {
  const search = document.getElementById('sample-search'), count = document.getElementById('sample-count');
  const times = [];
  for (const value of ['', ...[...needle].map((_, at) => needle.slice(0, at + 1))]) {
    let settled = 0;
    const done = new Promise((resolve) => new MutationObserver((_, watcher) => {
      settled = performance.now(); watcher.disconnect(); resolve();
    }).observe(count, { childList: true, characterData: true, subtree: true }));
    const from = performance.now();
    search.value = value;
    search.dispatchEvent(new Event('input', { bubbles: true }));
    const frame = await new Promise((resolve) =>
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now()))));
    await done;
    if (value) times.push([frame - from, settled - from]);
  }
  return times;
}"""
# Scrolls the whole list in 300 frames; resolves to the ms between frames and the frames without a row in view.
SCROLL = """async () => {
  const list = document.getElementById('sample-list'), steps = 300, gaps = [];
  list.scrollIntoView({ block: 'center' });
  let empty = 0, before = await new Promise(requestAnimationFrame);
  for (let step = 1; step <= steps; step++) {
    list.scrollTop = (list.scrollHeight - list.clientHeight) * step / steps;
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - before);
    before = now;
    const box = list.getBoundingClientRect();
    empty += !document.elementFromPoint(box.left + 20, box.top + box.height / 2)?.closest('.row');
  }
  return [gaps, empty];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--prompt-chars", type=int, default=4000)
    arguments = parser.parse_args()
    started = time.perf_counter()
    page_text = report(arguments.items, arguments.prompt_chars)
    figures: dict[str, object] = {
        "items": arguments.items,
        "report_mb": round(len(page_text) / 1e6, 1),
        "render_s": round(time.perf_counter() - started, 2),
    }
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tool:
        file = Path(folder) / "report.html"
        file.write_text(page_text, encoding="utf-8")
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        figures |= measure(browser.new_page(viewport={"width": 1280, "height": 900}), file.as_uri(), arguments.items)
        browser.close()
    print(json.dumps(figures, indent=2))


def report(items: int, prompt_chars: int) -> str:
    """The report of a result whose samples are texts of about `prompt_chars` characters."""
    chance = random.Random(7)  # noqa: S311  not for secrets
    rows = []
    for index in range(items):
        words = chance.choices(WORDS, k=prompt_chars // 5)
        prompt = f"item-{index} " + " ".join(words)
        right = index % 2 == 0
        answer = " ".join(chance.choices(WORDS, k=40))
        rows.append(SampleRow("sums", index, prompt, answer, answer if right else "7", answer, float(right), None, 0.1))
    result = example_result()
    value = sum(row.score for row in rows) / items
    task = replace(result.tasks[0], items=items, score=value, format_failures=0, item_failures={})
    return render_report(replace(result, tasks=(task,), score=Score(value, 0.0, 1.0)), rows)


def measure(page: Page, address: str, items: int) -> dict[str, object]:
    started = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.locator("#sample-count", has_text=re.compile(f"^{items} of {items} items$")).wait_for(timeout=120_000)
    ready_s = time.perf_counter() - started
    paint_ms = page.evaluate(PAINT)
    first = page.evaluate(TYPE, "which")  # makes the lower-case texts
    times = [pair for needle in NEEDLES for pair in page.evaluate(TYPE, needle)]
    page.fill("#sample-search", "")
    page.locator("#sample-count", has_text=re.compile(f"^{items} of {items} items$")).wait_for()
    gaps, empty = page.evaluate(SCROLL)
    return {
        "first_paint_ms": round(paint_ms),
        "all_items_ready_s": round(ready_s, 2),
        "first_search_ms": round(first[0][1]),
        "keystroke_to_frame_ms": quantiles([frame for frame, _ in times]),
        "keystroke_to_list_ms": quantiles([settled for _, settled in times]),
        "scroll_frame_ms": quantiles(gaps),
        "scroll_frames_without_rows": empty,
        "rows_in_document": page.locator(".row").count(),
    }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 1),
        "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 1),
        "max": round(ordered[-1], 1),
    }


if __name__ == "__main__":
    main()
