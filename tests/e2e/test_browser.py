"""A participant's way through the site, in a real browser, against the whole system."""

import re
import secrets
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from uploads_for_tests import context_archive

pytestmark = [pytest.mark.browser, pytest.mark.docker, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]

RULE_SERVER = (Path(__file__).resolve().parents[1] / "support" / "rule_server.py").read_text()
DOCKERFILE = """\
ARG BASE=tiltyard/python:3.11
FROM ${BASE}
ENV ANSWER_DELAY_S=%s
COPY server.py /app/server.py
CMD ["python3", "/app/server.py"]
"""
RUN_TIMEOUT_MS = 300_000


def archive(folder: Path, name: str, answer_delay_s: float = 0.0) -> Path:
    return context_archive(
        folder / f"{name}.tar.gz",
        dockerfile=DOCKERFILE % answer_delay_s,
        manifest={"name": name},
        files={"server.py": RULE_SERVER},
    )


def sign_up(page: Page) -> str:
    """Make an account in the page; returns its name."""
    name, password = f"ada{secrets.token_hex(4)}", secrets.token_urlsafe(16)
    page.goto("/")
    page.get_by_role("link", name="Sign up").first.click()
    page.get_by_label("Username").fill(name)
    page.get_by_label(re.compile("^E-?mail", re.IGNORECASE)).fill(f"{name}@example.org")
    page.locator("input[name=password1]").fill(password)
    page.locator("input[name=password2]").fill(password)
    page.locator("main").get_by_role("button", name="Sign up").click()
    expect(page.get_by_role("banner").get_by_text(name)).to_be_visible()
    return name


def upload(page: Page, path: Path) -> None:
    """Hand a file in; ends on the run's page."""
    page.goto("/competitions/demo/submit/")
    page.get_by_label("Two cores").check()
    page.locator("#file").set_input_files(path)
    page.get_by_role("button", name="Submit", exact=True).click()
    page.wait_for_url("**/runs/**")


def test_upload_runs_and_takes_its_place_on_the_board(page: Page, tmp_path: Path) -> None:
    owner = sign_up(page)
    upload(page, archive(tmp_path, "by-rule"))

    # The page moves by itself: nothing here loads it again.
    state = page.locator("#run-state")
    expect(state).to_have_text("Evaluating", timeout=RUN_TIMEOUT_MS)
    expect(page.locator(".timeline [aria-current=step]")).to_have_text(re.compile("Evaluat"))
    expect(state).to_have_text("Scored", timeout=RUN_TIMEOUT_MS)
    expect(page.locator(".timeline li.now")).to_have_count(0)

    page.goto("/competitions/demo/leaderboard/")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="by-rule"))
    expect(row).to_contain_text(owner)
    score = float(re.findall(r"\d+\.\d+", row.locator("[data-label=Open]").inner_text())[0])
    # Addition and doubled letters are right, most of the rest is wrong: neither nothing nor everything.
    assert 10 < score < 90


def test_running_submission_is_cancelled(page: Page, tmp_path: Path) -> None:
    sign_up(page)
    upload(page, archive(tmp_path, "slow", answer_delay_s=5.0))
    expect(page.locator("#run-state")).to_have_text("Evaluating", timeout=RUN_TIMEOUT_MS)
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator("#run-state")).to_have_text("Cancelled", timeout=30_000)

    page.goto("/competitions/demo/leaderboard/")
    expect(page.get_by_role("link", name="slow")).to_have_count(0)


def test_file_that_is_no_archive_is_refused_on_the_page(page: Page, tmp_path: Path) -> None:
    sign_up(page)
    nonsense = tmp_path / "model.zip"
    nonsense.write_bytes(b"this is no archive" * 100)
    page.goto("/competitions/demo/submit/")
    page.get_by_label("Two cores").check()
    page.locator("#file").set_input_files(nonsense)
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Not accepted")
    assert "/submit/" in page.url


def test_without_scripts_an_upload_over_the_limit_is_answered_with_a_page(
    page_without_scripts: Page, tmp_path: Path
) -> None:
    page = page_without_scripts
    huge = tmp_path / "huge.tar.gz"
    with huge.open("wb") as file:
        file.truncate(48 << 20)
    sign_up(page)
    page.goto("/competitions/demo/submit/")
    page.get_by_label("Two cores").check()
    page.locator("#file").set_input_files(huge)
    with page.expect_response("**/submit/") as answered:
        page.get_by_role("button", name="Submit", exact=True).click()
    assert answered.value.status == 413
    expect(page.get_by_role("heading", name="The upload is too large")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("more than the 32.0 MiB allowed")
    page.get_by_role("link", name="Choose another archive").click()
    expect(page.get_by_role("button", name="Submit", exact=True)).to_be_visible()
