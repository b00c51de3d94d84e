"""The HTML report: complete, self-contained, and safe to open whatever a model wrote."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from eval_results import example_result

from tiltyard_eval.__main__ import main
from tiltyard_eval.files import write_json, write_jsonl
from tiltyard_eval.pieces.text import visible
from tiltyard_eval.report import MAX_SAMPLES, MAX_TEXT_CHARS, render_report
from tiltyard_eval.results import Failure, LatencyHistogram, Result, SuiteRef
from tiltyard_eval.sample_rows import SampleRow, parse_row

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&<!--\u2028\u202e\x00\ud800"\''


def raw(**changes: Any) -> dict[str, Any]:
    row = {"task": "sums", "index": 0, "prompt": "1+1=", "answer": " 2", "expected": "2", "score": 1.0}
    return {**row, "failure": None, "latency_s": 0.1, "extracted": "2", **changes}


def sample(**changes: Any) -> SampleRow:
    return parse_row(raw(**changes), "row")


def eight_samples() -> list[SampleRow]:
    """What gives `example_result`: five right, one wrong, one without a readable answer, one refused."""
    kinds = [None] * 6 + ["format", "http_status"]
    return [sample(index=i, score=float(i < 5), failure=kind) for i, kind in enumerate(kinds)]


class Elements(HTMLParser):
    """Collects tags, and the text of the data blocks."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][1].get("class") == "sample-block" and data.strip():
            self.blocks.append(data)

    def items(self) -> list[list[Any]]:
        """task, index, score, failure, latency, prompt, answer, expected, extracted of every item in the page."""
        return [row for block in self.blocks if block.startswith("[[") for row in json.loads(block)]


def test_report_shows_score_interval_tasks_and_samples() -> None:
    page = render_report(example_result(), [sample(prompt="a question")])
    for text in ("62.5", "50.0", "75.0", "Sums", "a question", "sha256:feed", "Family", "arithmetic"):
        assert text in page


def test_answers_are_told_apart_by_what_became_of_them() -> None:
    page = render_report(example_result(), eight_samples())
    rows = re.findall(r"</span>([\w :]+?)</span>(?: <small.*?</small>)?</th><td [^>]*>(\d+)</td>", page)
    assert rows == [
        ("Right", "5"),
        ("Wrong", "1"),
        ("No readable answer", "1"),
        ("Faulty: the response had another status than 200", "1"),
    ]
    assert "disagree" not in page


def test_latency_is_drawn_from_the_result_or_else_from_the_samples() -> None:
    result = example_result()
    drawn = replace(result, timing=replace(result.timing, latency_histogram=LatencyHistogram((0.1, 0.2, 0.5), (3, 1))))
    assert "4 requests from 100 ms to 500 ms" in render_report(drawn, [])
    old = replace(result, timing=replace(result.timing, latency_histogram=None))
    assert "8 items from 100 ms" in render_report(old, eight_samples())
    assert "<figure" not in render_report(old, [])


def test_ties_and_metrics_are_shown_where_there_are_any() -> None:
    result = example_result()
    task = replace(result.tasks[0], ties=3, metrics={"acc_norm,none": 0.625, "exact_match,first": 0.5})
    page = render_report(replace(result, tasks=(task,)), [])
    assert '<td data-label="Ties" class="right">3</td>' in page
    assert "<code>exact_match</code>" in page
    assert '<td data-label="Filter">first</td>' in page
    assert "Ties" not in render_report(result, [])


def test_samples_that_do_not_give_the_result_are_marked_loudly() -> None:
    forged = [replace(row, score=0.0) for row in eight_samples()]
    page = render_report(example_result(), forged)
    assert "Result and samples disagree" in page
    assert "task &#x27;sums&#x27; says 62.5%, but its samples give 0.0%" in page


def test_hostile_text_stays_text() -> None:
    result = example_result()
    assert result.suite is not None
    hostile = replace(result, suite=replace(result.suite, title=HOSTILE), settings={"x": HOSTILE})
    rows = [sample(prompt=HOSTILE, answer=HOSTILE, extracted="", expected=HOSTILE, task=HOSTILE, failure=HOSTILE)]
    elements = Elements(render_report(hostile, rows))
    scripts = [attrs.get("type") for tag, attrs in elements.tags if tag == "script"]
    assert scripts == ["application/json", "application/json", None]
    assert not any(tag == "img" or name.startswith("on") for tag, attrs in elements.tags for name in attrs)
    assert elements.items()[0][6] == HOSTILE


def test_what_could_turn_or_hide_text_is_shown_as_its_code_point() -> None:
    assert visible("a\u202eb\x00c\ud800\r\nd\te") == "a⟨U+202E⟩b⟨U+0000⟩c⟨U+D800⟩\nd\te"
    result = example_result()
    task = replace(result.tasks[0], title="\u202eevil\x07")
    page = render_report(replace(result, tasks=(task,)), [])
    assert "⟨U+202E⟩evil⟨U+0007⟩" in page
    assert "\u202e" not in page


def test_page_loads_nothing_and_its_policy_allows_only_its_own_code() -> None:
    page = render_report(example_result(), [sample()])
    elements = Elements(page)
    assert not [attrs for _, attrs in elements.tags if "src" in attrs or "href" in attrs or "style" in attrs]
    assert "url(" not in page
    policy = next(attrs["content"] for _, attrs in elements.tags if attrs.get("http-equiv"))
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]+'; script-src 'sha256-[\w+/=]+'; base-uri 'none';"
        r" form-action 'none'",
        policy,
    )


def test_hidden_items_are_left_out_unless_asked_for() -> None:
    result = example_result()
    hidden = replace(result, suite=SuiteRef("h", "Hidden", "1", "hidden", "sha256:00"))
    rows = [sample(prompt="question nobody knows", expected="answer nobody knows")]
    assert "nobody knows" not in render_report(hidden, rows)
    assert "answer nobody knows" in render_report(hidden, rows, with_hidden=True)


def test_huge_texts_and_too_many_items_are_cut_and_said() -> None:
    rows = [sample(index=n) for n in range(MAX_SAMPLES + 5)]
    rows[0] = replace(rows[0], answer="x" * (MAX_TEXT_CHARS + 1000))
    page = render_report(example_result(), rows)
    items = Elements(page).items()
    assert len(items) == MAX_SAMPLES
    assert items[0][6].endswith("… (1,000 more characters)")
    assert "The first 10,000 of 10,005 items" in page


def test_failed_run_shows_reason_and_message() -> None:
    failed = replace(
        example_result(), status="failed", score=None, tasks=(), failure=Failure("start_timeout", "No <answer>.")
    )
    page = render_report(failed, [])
    assert "Failed: start timeout" in page
    assert "No &lt;answer&gt;." in page


def test_command_writes_the_file_and_names_a_folder_without_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    write_json(folder / "result.json", example_result().to_json())
    write_jsonl(folder / "samples.jsonl", [raw()])
    assert main(["report", str(folder), "--out", str(tmp_path / "report.html")]) == 0
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "open.html").exists()
    assert main(["report", str(tmp_path / "nothing"), "--out", str(tmp_path / "no.html")]) == 3
    assert "nothing is no folder" in capsys.readouterr().err
    (folder / "samples.jsonl").write_text('{"task": 1}\n')
    assert main(["report", str(folder)]) == 3
    assert "samples.jsonl, line 1: task is not a text" in capsys.readouterr().err


def ten_thousand() -> tuple[Result, list[SampleRow]]:
    """A result of 10,000 items that agree with it: every second one right."""
    result = example_result()
    task = replace(result.tasks[0], items=10_000, score=0.5, format_failures=0, item_failures={})
    rows = [sample(index=n, prompt=f"question {n}", answer=HOSTILE, score=float(n % 2)) for n in range(10_000)]
    return replace(result, tasks=(task,), score=replace(result.score, value=0.5)), rows


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Any]:
    """The report of 10,000 items in a browser; the test fails when anything foreign ran or an error was logged."""
    playwright = pytest.importorskip("playwright.sync_api")
    file = tmp_path / "report.html"
    file.write_text(render_report(*ten_thousand()))
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        faults: list[str] = []
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(file.as_uri())
        page.locator("#sample-count", has_text=re.compile("^10000 of 10000 items$")).wait_for(timeout=10_000)
        yield page
        browser.close()
    assert faults == []


@pytest.mark.browser
def test_viewer_filters_ten_thousand_samples_and_runs_no_foreign_script(viewer: Any) -> None:
    viewer.select_option("#sample-outcome", "wrong")
    viewer.locator("#sample-count", has_text="5000 of 10000 items").wait_for()
    viewer.fill("#sample-search", "question 9998")
    viewer.locator("#sample-count", has_text="1 of 10000 items").wait_for()
    viewer.locator("#sample-detail h3", has_text="Sums 9998").wait_for()
    assert viewer.locator("#sample-detail mark").text_content() == "question 9998"
    assert viewer.locator("#sample-detail pre").nth(1).text_content() == visible(HOSTILE)
    viewer.fill("#sample-search", "nowhere [")
    viewer.locator("#sample-detail", has_text="No item matches.").wait_for()


@pytest.mark.browser
def test_viewer_holds_only_the_rows_in_view_and_obeys_the_keyboard(viewer: Any) -> None:
    assert viewer.locator(".row").count() < 60
    viewer.locator("#sample-list").focus()
    viewer.keyboard.press("End")
    viewer.locator("#sample-detail h3", has_text="Sums 9999").wait_for()
    chosen = viewer.locator('.row[aria-selected="true"]')
    assert chosen.get_attribute("aria-posinset") == "10000"
    assert viewer.locator("#sample-list").get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    viewer.keyboard.press("ArrowUp")
    viewer.locator("#sample-detail h3", has_text="Sums 9998").wait_for()
    viewer.keyboard.press("Enter")
    assert viewer.evaluate("document.activeElement.id") == "sample-detail"
    viewer.keyboard.press("Escape")
    assert viewer.evaluate("document.activeElement.id") == "sample-list"
    viewer.keyboard.press("/")
    assert viewer.evaluate("document.activeElement.id") == "sample-search"
    assert viewer.locator(".row").count() < 60
