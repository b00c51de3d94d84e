"""What the documents promise exists, and what exists is documented."""

import re
from pathlib import Path

import pytest
import typer.main

from tiltyard.cli.app import app
from tiltyard.cli.errors import KINDS, ExitCode

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
CLI = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
SETTINGS = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # the app has several commands
GROUPS = {name: command.commands for name, command in COMMANDS.items() if hasattr(command, "commands")}
OWN_PAGES = [
    DOCS / "README.md",
    DOCS / "tutorials" / "first-submission.md",
    *(DOCS / "how-to" / f"{name}.md" for name in ("pack-your-own-server", "bring-an-image-archive", "read-a-verdict")),
    DOCS / "how-to" / "run-a-competition.md",
]


def variables_of(*folders: str) -> set[str]:
    """Every TILTYARD_ variable that the sources name."""
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {name for path in sources for name in re.findall(r"\bTILTYARD_[A-Z_]+\b", path.read_text(encoding="utf-8"))}


def options_of(name: str, action: str = "") -> set[str]:
    """The options of a command; of a group those of one of its commands, or without its name of all."""
    commands = [COMMANDS[name]]
    if name in GROUPS:
        commands = [command for key, command in GROUPS[name].items() if action in ("", key)]
    return {option for command in commands for parameter in command.params for option in parameter.opts} | {"--help"}


def test_every_command_of_a_group_is_documented() -> None:
    assert GROUPS.keys() == {"suite", "worker"}
    for group, commands in GROUPS.items():
        for name in commands:
            assert f"    tiltyard {group} {name} " in CLI


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_is_documented(name: str) -> None:
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", CLI, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/reference/cli.md has no section {name}"
    shared = re.search(r"^## Options of every command\n(.*?)(?=^## )", CLI, re.MULTILINE | re.DOTALL)
    assert shared is not None
    options = {option for option in options_of(name) if option.startswith("--")}
    missing = {option for option in options if option not in section[1] and f"`{option}" not in shared[1]}
    assert missing == set()


@pytest.mark.parametrize("path", [DOCS / "reference" / "cli.md", *OWN_PAGES], ids=lambda path: path.name)
def test_commands_in_the_documents_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    uses = re.findall(r"(?:^ {4,}|`)tiltyard ([a-z]+)((?: [^\n`]*)?)", text, re.MULTILINE)
    for name, rest in uses:
        assert name in COMMANDS, f"{path.name} uses `tiltyard {name}`"
        action = next(iter(rest.split()), "") if name in GROUPS else ""
        assert not action or action in GROUPS[name], f"{path.name} uses `tiltyard {name} {action}`"
        known = options_of(name, action)
        assert set(re.findall(r"--[a-z0-9-]+", rest)) <= known, f"{path.name}: tiltyard {name}{rest}"


def test_every_exit_code_is_documented() -> None:
    for code in ExitCode:
        assert re.search(rf"^\| {int(code)} \|", CLI, re.MULTILINE), code
    for code, kind in KINDS.items():
        assert f"`{kind}`" in CLI or code is ExitCode.SUBMISSION_FAILED


def test_every_variable_is_documented_and_every_documented_one_is_read() -> None:
    documented = set(re.findall(r"^\| `(TILTYARD_[A-Z_]+)`", SETTINGS, re.MULTILINE))
    settings = set(re.findall(r'"(TILTYARD_[A-Z_]+)"', (ROOT / "platform/tiltyard/settings.py").read_text("utf-8")))
    command = variables_of("platform/tiltyard/cli")
    assert settings | command <= documented
    assert documented <= settings | command | variables_of("sandbox", "baselines")


@pytest.mark.parametrize("path", OWN_PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_verdict_is_explained() -> None:
    states = (ROOT / "platform/tiltyard/submissions/states.py").read_text(encoding="utf-8")
    page = (DOCS / "how-to" / "read-a-verdict.md").read_text(encoding="utf-8")
    reasons = re.search(r"class FailureReason.*?\n\n\n", states, re.DOTALL)
    assert reasons is not None
    names = re.findall(r'= "([a-z_]+)"', reasons[0])
    assert len(names) == 9
    assert all(f"| `{name}` |" in page for name in names)
