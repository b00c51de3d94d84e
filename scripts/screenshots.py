"""Take the screenshots of the documentation from a running site.

    TILTYARD_USER=ada TILTYARD_PASSWORD=… python scripts/screenshots.py http://127.0.0.1:8000 --competition demo

Writes docs/images/NAME-light.png, NAME-dark.png and NAME-phone.png for home, competition, submit, run and leaderboard.
The user signs in by the form, so that the pictures show what a participant sees. The run is the one that leads the
board, unless --run names another.
"""

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES_DIR = Path(__file__).resolve().parents[1] / "docs" / "images"
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
HEIGHT_MAX = 1600  # of wide pictures, in CSS pixels: what a reader of the documentation takes in
PHONE_HEIGHT_MAX = 1400


@dataclass(frozen=True)
class Look:
    """One of the three ways in which every page is photographed."""

    name: str
    width: int
    height: int
    height_max: int
    scheme: str


LOOKS = [
    Look("light", 1280, 800, HEIGHT_MAX, "light"),
    Look("dark", 1280, 800, HEIGHT_MAX, "dark"),
    Look("phone", 390, 844, PHONE_HEIGHT_MAX, "light"),
]


def main() -> None:
    arguments = parse_arguments()
    user, password = os.environ.get("TILTYARD_USER"), os.environ.get("TILTYARD_PASSWORD")
    if not user or not password:
        sys.exit("Set TILTYARD_USER and TILTYARD_PASSWORD to an account of the site.")
    chromium = shutil.which(os.environ.get("TILTYARD_CHROMIUM", "chromium"))
    if chromium is None:
        sys.exit("There is no chromium. On Debian: apt-get install chromium")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
        for look in LOOKS:
            photograph(browser, look, arguments, user, password)
        browser.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", help="where the site runs, such as http://127.0.0.1:8000")
    parser.add_argument("--competition", default="demo", help="its slug")
    parser.add_argument("--run", help="the id of the run to show; the leading one without it")
    parser.add_argument("--out", type=Path, default=IMAGES_DIR)
    return parser.parse_args()


def photograph(browser: Browser, look: Look, arguments: argparse.Namespace, user: str, password: str) -> None:
    context = browser.new_context(
        base_url=arguments.base_url,
        viewport={"width": look.width, "height": look.height},
        color_scheme="dark" if look.scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    sign_in(page, user, password)
    competition = f"/competitions/{arguments.competition}/"
    pages = {
        "home": "/",
        "competition": competition,
        "submit": f"{competition}submit/",
        "leaderboard": f"{competition}leaderboard/",
        "run": f"/runs/{arguments.run}/" if arguments.run else leading_run(page, competition),
    }
    for name, path in pages.items():
        file = arguments.out / f"{name}-{look.name}.png"
        take(page, path, look, file)
        print(f"{file}  {file.stat().st_size // 1024} KiB")
    context.close()


def sign_in(page: Page, user: str, password: str) -> None:
    page.goto("/accounts/login/")
    page.locator("input[name=login]").fill(user)
    page.locator("input[name=password]").fill(password)
    page.locator("main button[type=submit]").click()
    if page.locator(".menu summary").count() == 0:
        sys.exit(f"The site did not let {user} sign in.")


def leading_run(page: Page, competition: str) -> str:
    page.goto(f"{competition}leaderboard/")
    links = page.locator("table.board tbody th a")
    if links.count() == 0:
        sys.exit("The leaderboard is empty: name a run with --run.")
    return str(links.first.get_attribute("href"))


def take(page: Page, path: str, look: Look, file: Path) -> None:
    """The page from its top, as long as it is, up to the look's largest height."""
    response = page.goto(path)
    if response is None or not response.ok:
        sys.exit(f"{path} answered {response.status if response else 'nothing'}.")
    length = int(page.evaluate("document.documentElement.scrollHeight"))
    page.screenshot(
        path=file,
        full_page=True,
        clip={"x": 0, "y": 0, "width": look.width, "height": min(length, look.height_max)},
    )


if __name__ == "__main__":
    main()
