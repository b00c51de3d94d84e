"""A large file from a real browser to a real server: it goes on after a reload, a stop, and a killed server."""

import base64
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from upload_server import SLUG, UploadServer, running
from uploads_for_tests import context_archive

pytestmark = [pytest.mark.browser, pytest.mark.slow]

_MIB_PER_S = 2  # slow enough to come between
_PATIENCE_MS = 30_000  # the files take about 5 s at that rate, and the machine may be busy


@pytest.fixture(scope="module")
def browser(chromium_executable: str) -> Iterator[Browser]:
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_executable, args=[*quiet, "--disable-sync"])
        yield browser
        browser.close()
    expect.set_options(timeout=None)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = base64.b64encode(os.urandom(9 << 20)).decode()
    return context_archive(tmp_path_factory.mktemp("archive") / "entry.tar.gz", files={"weights.txt": weights})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[UploadServer]:
    with running(tmp_path, TILTYARD_SITE_URL="http://127.0.0.1") as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: UploadServer) -> Iterator[Page]:
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    page.goto("/accounts/login/")
    page.locator("input[name=login]").fill("owner")
    page.locator("input[name=password]").fill("correct horse battery")
    page.locator("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{server.url}/")
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": _MIB_PER_S << 20}
    session.send("Network.emulateNetworkConditions", limits)
    yield page
    context.close()


def _submit(page: Page, path: Path) -> None:
    page.goto(f"/competitions/{SLUG}/submit/")
    page.locator("#file").set_input_files(path)
    page.get_by_role("button", name="Submit", exact=True).click()


def _wait_for_bytes(server: UploadServer, least: int) -> None:
    deadline = time.monotonic() + 30
    folder = server.data_dir / "uploads" / "resumable"
    while time.monotonic() < deadline:
        if any(path.stat().st_size >= least for path in folder.glob("*.part")):
            return
        time.sleep(0.02)
    raise AssertionError("nothing arrived")


def test_an_upload_goes_on_after_a_reload(page: Page, server: UploadServer, archive: Path) -> None:
    _submit(page, archive)
    _wait_for_bytes(server, 1 << 20)
    page.once("dialog", lambda dialog: dialog.accept())
    page.goto(f"/competitions/{SLUG}/submit/")
    expect(page.get_by_role("heading", name="Unfinished uploads")).to_be_visible()
    expect(page.get_by_text(re.compile(r"\d(\.\d)? MiB of 9\.\d MiB are here, for the track CPU"))).to_be_visible()
    offsets: list[str] = []
    page.on("request", lambda request: offsets.append(request.headers.get("upload-offset", "")))
    _submit(page, archive)
    page.wait_for_url("**/runs/**")
    resumed = [int(offset) for offset in offsets if offset]
    assert resumed
    assert resumed[0] >= 1 << 20
    page.goto(f"/competitions/{SLUG}/submit/")
    expect(page.get_by_role("heading", name="Unfinished uploads")).to_have_count(0)


def test_an_upload_goes_on_after_the_server_was_killed(page: Page, server: UploadServer, archive: Path) -> None:
    _submit(page, archive)
    _wait_for_bytes(server, 1 << 20)
    server.kill()
    expect(page.locator("#upload-status")).to_have_text("The connection broke. Going on in a moment…")
    server.start()
    page.wait_for_url("**/runs/**")
    expect(page.locator("#run-state")).to_have_text("Queued")


def test_a_stopped_upload_can_be_discarded(page: Page, server: UploadServer, archive: Path) -> None:
    _submit(page, archive)
    _wait_for_bytes(server, 1 << 20)
    page.get_by_role("button", name="Stop the upload").click()
    expect(page.get_by_role("alert")).to_contain_text("go on where it stopped")
    page.goto(f"/competitions/{SLUG}/submit/")
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("heading", name="Hand in a submission")).to_be_visible()
    expect(page.get_by_role("heading", name="Unfinished uploads")).to_have_count(0)
    assert list((server.data_dir / "uploads" / "resumable").iterdir()) == []


def test_what_was_refused_is_said_in_place(page: Page, tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish.zip"
    rubbish.write_bytes(os.urandom(9 << 20))
    _submit(page, rubbish)
    expect(page.get_by_role("alert")).to_contain_text("archive")
    expect(page.get_by_role("button", name="Submit", exact=True)).to_be_enabled()


def test_a_check_that_does_not_end_is_not_waited_for_for_ever(page: Page, server: UploadServer, archive: Path) -> None:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    in_the_way = server.data_dir / "artefacts" / sha256[:2] / sha256
    in_the_way.mkdir(parents=True)
    page.clock.install()
    _submit(page, archive)
    expect(page.locator("#upload-status")).to_have_text("Uploaded. Checking the archive…")
    page.clock.fast_forward("31:00")
    expect(page.get_by_role("alert")).to_contain_text("has not checked it yet. Nothing has to be sent again")
    expect(page.get_by_role("button", name="Submit", exact=True)).to_be_enabled()
    page.goto(f"/competitions/{SLUG}/submit/")
    expect(page.get_by_text("Complete, and not checked yet.")).to_be_visible()
    expect(page.get_by_role("button", name="Hand in now")).to_be_visible()
