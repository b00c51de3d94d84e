"""The tutorial for participants, followed to the letter by somebody new: an empty home, a browser, a terminal."""

import json
import os
import re
import secrets
import sqlite3
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from terminal import Terminal

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
TUTORIAL = REPOSITORY_DIR / "docs" / "tutorials" / "first-submission.md"
SAMPLES = """
    SELECT task.name, sample."index", sample.prompt, sample.answer, sample.expected, sample.score, sample.failure
    FROM submissions_sample AS sample
    JOIN submissions_taskresult AS task ON sample.task_result_id = task.id
    JOIN submissions_suiteresult AS suite ON task.suite_result_id = suite.id
    WHERE suite.run_id = ?
"""

pytestmark = [
    *(pytest.mark.browser, pytest.mark.docker, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(3600)),
    pytest.mark.skipif(
        "TILTYARD_TEST_TUTORIAL" not in os.environ,
        reason="a real training takes minutes: set TILTYARD_TEST_TUTORIAL=1, as before a release",
    ),
]


def commands(page: str) -> list[str]:
    """What the page says to type, in its order: its indented blocks, with continued lines joined to one command."""
    blocks = re.findall(r"(?:^ {4,}\S.*\n)+", page, re.MULTILINE)
    text = "".join(textwrap.dedent(block) for block in blocks)
    return [match[0].strip() for match in re.finditer(r"(?:.*\\\n)*.*\n", text)]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """In the clone, with a new home and nothing in the environment that a new user would not have."""
    kept = {name: os.environ[name] for name in ("PATH", "DOCKER_HOST", "LANG") if name in os.environ}
    with Terminal.opened(REPOSITORY_DIR, kept | {"HOME": str(tmp_path)}) as terminal:
        yield terminal


def make_account_and_token(page: Page, tutorial: str) -> str:
    """Step 3, in the browser; returns the token."""
    signup, tokens = re.findall(r"<(http://127[^>]+(?:signup|tokens)/)>", tutorial)
    page.goto(signup)
    password = secrets.token_urlsafe(16)
    page.get_by_label("Username").fill("newcomer")
    page.get_by_label(re.compile("^E-?mail", re.IGNORECASE)).fill("newcomer@example.org")
    page.locator("input[name=password1]").fill(password)
    page.locator("input[name=password2]").fill(password)
    page.locator("main").get_by_role("button", name="Sign up").click()
    page.goto(tokens)
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Make token").click()
    found = re.search(r"\bty_[\w-]+", page.get_by_role("main").inner_text())
    assert found is not None
    return found[0]


def open_score(shown: str) -> float:
    """In per cent, as `tiltyard evaluate` prints it in the last row of its table."""
    return float(re.findall(r"open suite +– +(\d+\.\d) \[", shown)[0])


def latest_items(home: Path) -> dict[tuple[str, int], tuple[object, ...]]:
    """What the last local evaluation wrote about each question."""
    samples = max(home.glob("joust/tiltyard-results/*/*/samples.jsonl"), key=lambda path: path.stat().st_mtime)
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    names = ("prompt", "answer", "expected", "score")
    return {(row["task"], row["index"]): (*(row[name] for name in names), row["failure"] or "") for row in rows}


def test_a_newcomer_takes_part(live_stack: Any, page: Page, terminal: Terminal, tmp_path: Path) -> None:
    tutorial = TUTORIAL.read_text().replace("http://127.0.0.1:8000", live_stack.address)
    typed = iter(commands(tutorial))
    page.set_default_timeout(60_000)  # the machine builds and evaluates beside the browser

    def follow(beginning: str, **options: Any) -> str:
        command = next(typed)
        assert command.startswith(beginning)
        return terminal.run(command, **options)

    assert next(typed) == "make demo"  # it runs already
    follow("source .venv/bin/activate")
    assert "evaluate" in follow("tiltyard --help")
    follow("mkdir ~/joust")
    follow("cd ~/joust")

    token = make_account_and_token(page, tutorial)
    shown = follow("tiltyard login", answers={"(input is hidden): ": token})
    assert "as newcomer" in shown
    assert token not in shown

    follow("tiltyard init my-model")
    folder = tmp_path / "joust" / "my-model"
    listed = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`.*?) \|", tutorial, re.MULTILINE)))
    assert sorted(listed) == sorted(path.name for path in folder.iterdir())

    before = open_score(follow("tiltyard evaluate my-model", timeout_s=900))

    fewer = "--count 2000"  # of which the page says that it is enough to see that it works
    assert f"`{fewer}` is enough" in tutorial
    command = next(typed)
    assert command.startswith("tiltyard data")
    terminal.run(command.replace("--count 20000", fewer))
    assert "loss" in follow("docker run", timeout_s=900)
    manifest = folder / "tiltyard.yaml"
    text = re.sub(r"^name: .*", "name: my-errand", manifest.read_text(), flags=re.MULTILINE)
    manifest.write_text(re.sub(r"^training_data: .*", "training_data: 2,000 questions of mix.yaml", text, flags=re.M))
    after = open_score(follow("tiltyard evaluate my-model", timeout_s=900))
    assert after > before

    live_stack.check()
    shown = follow("tiltyard submit my-model", timeout_s=900)
    assert "scored" in shown.lower()
    run_id = re.findall(r"^Run +([0-9a-f-]{36})", shown, re.MULTILINE)[0]
    with sqlite3.connect(live_stack.data_dir / "tiltyard.sqlite3") as database:
        served = {row[:2]: row[2:] for row in database.execute(SAMPLES, [run_id.replace("-", "")])}
    assert latest_items(tmp_path) == served

    assert "my-errand" in follow("tiltyard leaderboard demo")

    follow("tar ")
    page.goto(re.findall(r"<(http://127[^>]+submit/)>", tutorial)[0])
    page.locator("#file").set_input_files(tmp_path / "joust" / "my-model.tar.gz")
    page.get_by_role("button", name="Submit", exact=True).click()
    page.wait_for_url("**/runs/**")
    # The same archive has its score already, and test_browser follows a run to its end: this saves the time.
    expect(page.locator("#run-state")).to_have_text("Evaluating", timeout=900_000)
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator("#run-state")).to_have_text("Cancelled", timeout=60_000)
    assert next(typed, None) is None
