"""The whole system as separate processes; the tests have nothing but its address and a browser."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from services_for_tests import private_redis

from tiltyard.demo import place, processes

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
ARTIFACTS_DIR = Path(os.environ.get("TILTYARD_TEST_ARTIFACTS", REPOSITORY_DIR / "var" / "test-artifacts"))
UPLOAD_BYTES_MAX = 32 << 20
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class LiveStack:
    """A running system with the demo competition."""

    address: str
    data_dir: Path
    processes: list[processes.Running]

    def check(self) -> None:
        """Fail with the end of its log when a process has died, rather than at some later time-out."""
        for running in self.processes:
            running.check()


@pytest.fixture(scope="module")
def live_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """Web server, worker and periodic jobs on a real Redis, a SQLite file and the real Docker engine."""
    with ExitStack() as stack:
        redis_url = stack.enter_context(private_redis())
        here = place.prepare(tmp_path_factory.mktemp("stack"))
        stack.enter_context(here.listener)
        # A database of Redis for these processes alone, whoever else uses the server.
        here.environment["TILTYARD_REDIS_URL"] = redis_url.rpartition("/")[0] + "/3"
        here.environment["TILTYARD_UPLOAD_BYTES_MAX"] = str(UPLOAD_BYTES_MAX)
        here.environment["TILTYARD_DATABASE_URL"] = f"sqlite:///{here.data_dir}/tiltyard.sqlite3"
        for command in (["migrate", "-v0"], ["import_competition", str(REPOSITORY_DIR / "competitions" / "demo")]):
            subprocess.run(
                [sys.executable, REPOSITORY_DIR / "manage.py", *command], env=os.environ | here.environment, check=True
            )
        commands = {
            "web": processes.web_command(here),
            "worker": processes.worker_command("cpu"),
            "maintenance": processes.maintenance_command(here.data_dir),
        }
        children = [stack.enter_context(processes.started(here, name, command)) for name, command in commands.items()]
        processes.wait_for_web(children[0], here.address)
        yield LiveStack(here.address, here.data_dir, children)


@pytest.fixture(scope="module")
def browser(chromium_executable: str) -> Iterator[Browser]:
    """Chromium, for no longer than it is needed: Playwright keeps an event loop running in this thread meanwhile."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_executable, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser, live_stack: LiveStack) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=live_stack.address, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of a fresh browser profile; a test that fails leaves its screenshot in var/test-artifacts."""
    page = context.new_page()
    failed_before = request.session.testsfailed
    yield page
    if request.session.testsfailed > failed_before:
        ARTIFACTS_DIR.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=ARTIFACTS_DIR / f"{request.node.name}.png", full_page=True)


@pytest.fixture
def page_without_scripts(browser: Browser, live_stack: LiveStack) -> Iterator[Page]:
    """A page of a browser that runs no JavaScript."""
    with browser.new_context(base_url=live_stack.address, java_script_enabled=False) as context:
        yield context.new_page()
