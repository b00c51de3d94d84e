"""A secret is committed to before a round and revealed after it."""

import shlex
import stat
from pathlib import Path

import pytest

from tiltyard_eval.__main__ import main
from tiltyard_eval.suite import load_suite

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
  - {family: sort_words}
"""


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    assert run("suite", "commit", "--secret-file", path) == 0
    return path


def test_commitment_is_the_one_in_the_suite(
    tmp_path: Path, recipe: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_bytes()) == 32
    capsys.readouterr()
    assert run("suite", "commit", "--secret-file", secret) == 0  # again: the same secret, not a new one
    committed = capsys.readouterr().out.split()[-1]
    assert run("suite", "build", recipe, "--secret-file", secret, "--out", tmp_path / "suite") == 0
    assert f"commitment: {committed}\n" in (tmp_path / "suite" / "suite.yaml").read_text()


def test_revealed_secret_rebuilds_the_suite(
    tmp_path: Path, recipe: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, revealed = tmp_path / "the suite", tmp_path / "the secret"
    run("suite", "build", recipe, "--secret-file", secret, "--out", suite)
    assert run("suite", "reveal", suite, "--secret-file", secret, "--recipe", recipe, "--out", revealed) == 0
    printed = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert printed[:3] == ["python", "-m", "tiltyard_eval"]
    assert run(*printed[3:]) == 0
    assert run("suite", "build", recipe, "--secret-file", revealed, "--out", tmp_path / "again") == 0
    assert load_suite(tmp_path / "again").sha256 == load_suite(suite).sha256


def test_another_secret_reveals_nothing(
    tmp_path: Path, recipe: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, other, revealed = tmp_path / "suite", tmp_path / "other", tmp_path / "revealed"
    run("suite", "build", recipe, "--secret-file", secret, "--out", suite)
    run("suite", "commit", "--secret-file", other)
    assert run("suite", "reveal", suite, "--secret-file", other, "--recipe", recipe, "--out", revealed) == 2
    assert "error:" in capsys.readouterr().err
    assert not revealed.exists()


def test_another_recipe_reveals_nothing(tmp_path: Path, recipe: Path, secret: Path) -> None:
    suite, revealed = tmp_path / "suite", tmp_path / "revealed"
    run("suite", "build", recipe, "--secret-file", secret, "--out", suite)
    recipe.write_text(RECIPE.replace("[2, 3]", "[2, 4]"))
    assert run("suite", "reveal", suite, "--secret-file", secret, "--recipe", recipe, "--out", revealed) == 2
    assert not revealed.exists()


def test_a_secret_is_revealed_beside_the_suite_and_over_nothing(tmp_path: Path, recipe: Path, secret: Path) -> None:
    suite, taken = tmp_path / "suite", tmp_path / "taken"
    run("suite", "build", recipe, "--secret-file", secret, "--out", suite)
    taken.write_text("mine")
    for out in (suite / "secret", taken):
        assert run("suite", "reveal", suite, "--secret-file", secret, "--recipe", recipe, "--out", out) == 2
    assert not (suite / "secret").exists()
    assert taken.read_text() == "mine"


def test_the_published_hash_binds_the_questions(
    tmp_path: Path, recipe: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("suite", "commit", "--secret-file", secret, "--recipe", recipe) == 0
    published = capsys.readouterr().out.split()[-1]
    run("suite", "build", recipe, "--secret-file", secret, "--out", tmp_path / "suite")
    assert run("suite", "verify", tmp_path / "suite", "--sha256", published) == 0
    recipe.write_text(RECIPE.replace('version: "1"', 'version: "2"'))  # the same secret, other questions
    run("suite", "build", recipe, "--secret-file", secret, "--out", tmp_path / "other")
    assert run("suite", "verify", tmp_path / "other", "--secret-file", secret, "--recipe", recipe) == 0
    assert run("suite", "verify", tmp_path / "other", "--sha256", published) == 2
    assert "not the published one" in capsys.readouterr().err
