"""The commands that documents promise exist, and the scripts behind them say what they want."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
SETUP = REPOSITORY_DIR / "scripts" / "setup.sh"


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", (REPOSITORY_DIR / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_documented_make_targets_exist(document: str) -> None:
    promised = set(
        re.findall(r"(?:`|^\s+|\$ )make ([a-z][a-z-]*)", (REPOSITORY_DIR / document).read_text(), re.MULTILINE)
    )
    assert promised, f"{document} names no make target"
    assert promised <= make_targets()


def test_help_lists_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY_DIR, capture_output=True, check=True, text=True).stdout
    assert set(re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE)) == make_targets()


def test_every_script_is_executable_and_parses() -> None:
    for script in [*(REPOSITORY_DIR / "scripts").glob("*.sh"), REPOSITORY_DIR / ".ci" / "run"]:
        assert os.access(script, os.X_OK), script
        subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize(("tool", "says"), [("apt-get", "you are not root"), (None, "this is not Debian")])
def test_setup_without_the_right_to_install_says_what_is_missing_and_touches_nothing(
    tmp_path: Path, tool: str | None, says: str
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY_DIR / name, checkout / name)
    # A PATH with nothing of what Tiltyard needs but Python, and an `id` that is not root's.
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "cat", "sha256sum", "ls", "xargs", "echo", "mkdir"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "python3").symlink_to(Path(sys.executable).resolve())
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    if tool is not None:
        (tools / tool).write_text(f"#!/bin/sh\necho {tool} must not run >&2; exit 99\n")
    for path in tools.iterdir():
        if not path.is_symlink():
            path.chmod(0o755)

    result = subprocess.run(
        [checkout / "scripts" / "setup.sh", "demo"],
        env={"PATH": str(tools), "HOME": str(tmp_path)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1, result.stderr
    assert says in result.stderr
    assert "apt-get install --no-install-recommends" in result.stderr
    assert "git" in result.stderr
    assert not (checkout / ".venv").exists()


def test_setup_refuses_an_unknown_profile() -> None:
    result = subprocess.run([SETUP, "everything"], capture_output=True, check=False, text=True)
    assert result.returncode == 2
    assert "demo|test" in result.stderr
