"""`tiltyard suite …`: the evaluator's commands with the participants' command's manners."""

import json
import shlex
from pathlib import Path

import pytest

from tiltyard.cli.app import run

RECIPE = """
name: round-one
title: Round one
version: "1"
visibility: hidden
description: Two tasks.
items: 5
levels: [2, 3]
tasks:
  - {family: addition}
  - {family: grid_walk}
"""


def suite(*arguments: object) -> int:
    return run(["suite", *map(str, arguments)])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_round_from_the_commitment_to_the_reveal(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, folder, revealed = tmp_path / "secret", tmp_path / "suite", tmp_path / "the revealed"
    assert suite("commit", "--secret-file", secret, "--recipe", recipe, "--json") == 0
    published = json.loads(capsys.readouterr().out)
    assert suite("build", recipe, "--secret-file", secret, "--out", folder, "--json") == 0
    built = json.loads(capsys.readouterr().out)
    assert built["sha256"] == published["questions"]
    assert (built["name"], built["tasks"], built["items"]) == ("round-one", 2, 10)
    assert f"commitment: {published['secret']}\n" in (folder / "suite.yaml").read_text()
    assert suite("reveal", folder, "--secret-file", secret, "--recipe", recipe, "--out", revealed) == 0
    assert revealed.read_bytes() == secret.read_bytes()
    command, *check = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command == "tiltyard"
    assert run(check) == 0
    assert "Checked: lock, published hash, secret, built again, the same." in capsys.readouterr().out
    assert suite("verify", folder, "--sha256", "sha256:" + "0" * 64) == 2
    assert "not the published one" in capsys.readouterr().err


def test_a_changed_suite_is_refused_until_it_is_locked_anew(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "suite"
    suite("commit", "--secret-file", secret)
    suite("build", recipe, "--secret-file", secret, "--out", folder)
    task = folder / "suite.yaml"
    task.write_text(task.read_text().replace("Round one", "Round two"))
    assert suite("verify", folder) == 2
    assert "differs from its lock in ['suite.yaml']" in capsys.readouterr().err
    assert suite("lock", folder) == 0
    assert suite("verify", folder, "--json") == 0


def test_the_screen_names_each_family_and_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite("screen", "addition", "name_words", "--items", "60", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["refused"] == 0
    assert [one["family"] for one in found["families"]] == ["addition", "name_words"]
    assert all(one["faults"] == [] and len(one["best_guesses"]) == 5 for one in found["families"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "none"], "none: no such folder; a suite is a folder with suite.yaml."),
        (["build", "none.yaml", "--secret-file", "none", "--out", "x"], "none.yaml"),
        (["commit", "--secret-file", "none/secret"], "none/secret: No such file or directory. Check the path"),
        (["screen", "cooking"], "no family 'cooking'"),
        (["screen", "addition", "--items", "4"], "--items must be from 5 to 20000."),
        (["build"], "Run `tiltyard suite build --help` to see the usage."),
        (["bake"], "Run `tiltyard suite --help` to see the usage."),
    ],
)
def test_what_is_wrong_is_one_clear_error(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert suite(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert message in error
    assert error.count("\n") == 1
