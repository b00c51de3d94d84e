"""The HTML report: complete, self-contained, and safe to open whatever a model wrote."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from eval_results import example_result

from tiltyard_eval.__main__ import main
from tiltyard_eval.files import write_json, write_jsonl
from tiltyard_eval.report import render_report
from tiltyard_eval.results import Failure, SuiteRef

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&<!--\u2028\u202e"\''


def sample(**changes: Any) -> dict[str, Any]:
    row = {"task": "sums", "index": 0, "prompt": "1+1=", "answer": " 2", "expected": "2", "score": 1.0}
    return {**row, "failure": None, "latency_s": 0.1, "extracted": "2", **changes}


class Elements(HTMLParser):
    """Collects tags, and the text of the data block."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][1].get("id") == "sample-data":
            self.data += data


def test_report_shows_score_interval_tasks_and_samples() -> None:
    page = render_report(example_result(), [sample(prompt="a question")])
    for text in ("62.5", "50.0", "75.0", "Sums", "a question", "sha256:feed", "format"):
        assert text in page


def test_hostile_text_stays_text() -> None:
    result = example_result()
    assert result.suite is not None
    hostile = replace(result, suite=replace(result.suite, title=HOSTILE), settings={"x": HOSTILE})
    rows = [sample(prompt=HOSTILE, answer=HOSTILE, extracted=HOSTILE, expected=HOSTILE, task=HOSTILE)]
    page = render_report(hostile, rows)
    elements = Elements(page)
    scripts = [attrs for tag, attrs in elements.tags if tag == "script"]
    assert [attrs.get("type") for attrs in scripts] == ["application/json", None]
    assert not any(tag == "img" or name.startswith("on") for tag, attrs in elements.tags for name in attrs)
    assert json.loads(elements.data)[0]["answer"] == HOSTILE


def test_page_loads_nothing_and_its_policy_allows_only_its_own_code() -> None:
    page = render_report(example_result(), [sample()])
    elements = Elements(page)
    assert not [attrs for _, attrs in elements.tags if "src" in attrs or "href" in attrs or "style" in attrs]
    policy = next(attrs["content"] for _, attrs in elements.tags if attrs.get("http-equiv"))
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]+'; script-src 'sha256-[\w+/=]+'; base-uri 'none'", policy
    )


def test_hidden_items_are_left_out_unless_asked_for() -> None:
    result = example_result()
    hidden = replace(result, suite=SuiteRef("h", "Hidden", "1", "hidden", "sha256:00"))
    rows = [sample(prompt="question nobody knows", expected="answer nobody knows")]
    assert "nobody knows" not in render_report(hidden, rows)
    assert "answer nobody knows" in render_report(hidden, rows, with_hidden=True)


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
    write_json(tmp_path / "result.json", example_result().to_json())
    write_jsonl(tmp_path / "samples.jsonl", [sample()])
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "report.html")]) == 0
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()
    assert main(["report", str(tmp_path / "nothing"), "--out", str(tmp_path / "no.html")]) == 3
    assert "nothing" in capsys.readouterr().err


@pytest.mark.browser
def test_viewer_filters_ten_thousand_samples_and_runs_no_foreign_script(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    rows = [sample(index=n, prompt=f"question {n}", answer=HOSTILE, score=float(n % 2)) for n in range(10_000)]
    file = tmp_path / "report.html"
    file.write_text(render_report(example_result(), rows))
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(file.as_uri())
        page.locator("#sample-count", has_text="10000 of 10000 items").wait_for(timeout=10_000)
        page.select_option("#sample-outcome", "wrong")
        page.locator("#sample-count", has_text="5000 of 10000 items").wait_for()
        page.fill("#sample-search", "question 9998")
        page.locator("#sample-count", has_text="1 of 10000 items").wait_for()
        page.locator("details.sample summary").click()
        assert page.locator(".texts pre").nth(1).text_content() == HOSTILE
        assert dialogs == []
        browser.close()
