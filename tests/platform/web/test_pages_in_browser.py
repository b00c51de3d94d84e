"""What the pages' scripts do, in a real browser: uploading with progress, live stages, the theme, no policy broken."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import web_rows
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer
from uploads_for_tests import context_archive
from web_rows import Site

from tiltyard.accounts.models import User
from tiltyard.celery import app
from tiltyard.submissions.models import Run, Submission
from tiltyard.submissions.states import RunState

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module")
def browser(chromium_executable: str) -> Iterator[Browser]:
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright's event loop runs in this thread, and Django takes that for an asynchronous program.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=chromium_executable, args=[*quiet, "--disable-sync"])
        yield browser
        browser.close()


@pytest.fixture(scope="session", autouse=True)
def static_files_as_they_are() -> Iterator[None]:
    """Before the server starts: no list of files that nobody has collected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(django_settings, "WHITENOISE_AUTOREFRESH", True, raising=False)
        yield


@pytest.fixture(autouse=True)
def no_broker(settings: Settings) -> None:
    """Nothing listens on port 1: what is queued stays in the database."""
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    app.conf.update(broker_url=settings.REDIS_URL, broker_read_url=None, broker_write_url=None)


@pytest.fixture
def site(transactional_db: None) -> Site:
    return web_rows.make_site(timezone.now())


@pytest.fixture
def page(browser: Browser, live_server: LiveServer, site: Site) -> Iterator[Page]:
    """A page of the owner's; the test fails when anything is written to the console as an error."""
    context = browser.new_context(base_url=live_server.url)
    context.add_cookies([{"name": "sessionid", "value": _session(site.owner), "url": live_server.url}])
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if _is_fault(message) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def _session(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value


def _is_fault(message: ConsoleMessage) -> bool:
    """Everything but the browser's own note that a refusal came with its status."""
    return message.type == "error" and "the server responded with a status of 4" not in message.text


def choose(page: Page, site: Site, path: Path) -> None:
    page.goto(site.competition.get_absolute_url() + "submit/")
    page.get_by_label("CPU").check()
    page.locator("#file").set_input_files(path)


def submit(page: Page) -> None:
    page.get_by_role("button", name="Submit", exact=True).click()


def test_an_archive_is_uploaded_and_its_run_is_shown(page: Page, site: Site, tmp_path: Path) -> None:
    choose(page, site, context_archive(tmp_path / "entry.tar.gz"))
    expect(page.locator("#chosen-file")).to_contain_text("entry.tar.gz")
    submit(page)

    page.wait_for_url("**/runs/**")
    expect(page.locator("#run-state")).to_have_text("Queued")
    assert Submission.objects.get().original_filename == "entry.tar.gz"


def test_a_refusal_is_shown_in_place_and_the_choices_stay(page: Page, site: Site, tmp_path: Path) -> None:
    nonsense = tmp_path / "model.zip"
    nonsense.write_bytes(b"no archive" * 100)
    choose(page, site, nonsense)
    submit(page)

    expect(page.get_by_role("alert")).to_contain_text("Not accepted")
    expect(page.locator("#chosen-file")).to_contain_text("model.zip")
    expect(page.get_by_label("CPU")).to_be_checked()
    expect(page.get_by_role("button", name="Submit", exact=True)).to_be_enabled()


def test_a_file_that_is_too_large_is_refused_before_a_byte_is_sent(page: Page, site: Site, tmp_path: Path) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    large = tmp_path / "large.tar"
    with large.open("wb") as file:
        file.truncate(60 << 30)  # sparse: it takes no space
    choose(page, site, large)
    submit(page)

    expect(page.get_by_role("alert")).to_contain_text(
        "large.tar has 60.0 GiB, and at most 50.0 GiB may be uploaded here"
    )
    assert sent == []


def test_the_stages_move_and_the_scores_come_without_loading_again(page: Page, site: Site) -> None:
    run = web_rows.make_run(site, "racer", state=RunState.EVALUATING)
    page.goto(run.get_absolute_url())
    page.evaluate("window.wasNotLoadedAgain = true")
    expect(page.locator("#run-live")).to_contain_text("118 of 240 questions")

    Run.objects.filter(pk=run.pk).update(items_done=200)
    expect(page.locator("#run-live")).to_contain_text("200 of 240 questions")
    Run.objects.filter(pk=run.pk).update(state=RunState.SCORED, finished_at=timezone.now())
    run.refresh_from_db()
    web_rows.score(run, 0.7, 0.6)

    expect(page.locator("#run-state")).to_have_text("Scored")
    expect(page.locator("#run-announcement")).to_have_text("Scored")
    expect(page.locator("#run-results")).to_contain_text("Look at the answers")
    expect(page.get_by_role("button", name="Cancel the run")).to_have_count(0)
    assert page.evaluate("window.wasNotLoadedAgain") is True


def test_a_queued_run_is_cancelled(page: Page, site: Site) -> None:
    run = web_rows.make_run(site, "racer")
    page.goto(run.get_absolute_url())
    page.get_by_role("button", name="Cancel the run").click()

    expect(page.locator("#run-state")).to_have_text("Cancelled")
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED


def test_the_chosen_theme_is_remembered(page: Page, site: Site) -> None:
    page.goto("/")
    switch = page.get_by_role("button", name=re.compile("Colour theme"))
    switch.click()
    switch.click()
    page.goto(site.competition.get_absolute_url())

    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_screen(page: Page, site: Site, width: int) -> None:
    scored = web_rows.score(web_rows.make_run(site, "a" * 80, state=RunState.SCORED), 0.94, 0.33)
    page.set_viewport_size({"width": width, "height": 800})
    home = site.competition.get_absolute_url()
    tabs = [home + tab for tab in ("", "tasks/", "rules/", "dates/", "leaderboard/", "submissions/", "submit/")]
    web_rows.make_run(site, "waits")  # for which the status page has words
    for path in [
        "/",
        "/status/",
        *tabs,
        scored.get_absolute_url(),
        scored.get_absolute_url() + "samples/",
        "/account/tokens/",
    ]:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.goto(home + "leaderboard/")
    keys = page.locator(".legend .key").all()
    assert keys
    for words in keys:  # a word that is set letter below letter is not too wide
        box = words.bounding_box()
        assert box is not None
        assert box["width"] > box["height"], words.inner_text()
