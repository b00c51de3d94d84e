"""The bundle with every kind of question: it imports, and its round can be committed to, revealed and rebuilt."""

import subprocess
import sys
from pathlib import Path

import pytest

from tiltyard.competitions.bundle import import_bundle
from tiltyard_eval.build import load_recipe
from tiltyard_eval.generators import REGISTRY
from tiltyard_eval.suite import load_suite
from tiltyard_eval.twins import twin_links

BUNDLE = Path(__file__).parents[3] / "competitions" / "skills"
OPEN, RECIPE = BUNDLE / "suites" / "open", BUNDLE / "suites" / "hidden.recipe.yaml"
GROUPS = {"arithmetic", "algebra", "logic", "counting", "strings", "grids", "graphs", "code reading"}
GROUPS |= {"reading comprehension", "instruction following"}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tiltyard(*arguments: object) -> str:
    """In a process of its own with another hash seed, as on somebody else's machine."""
    command = [sys.executable, "-m", "tiltyard.cli", "suite", *map(str, arguments)]
    return subprocess.run(command, env={"PYTHONHASHSEED": "77"}, capture_output=True, text=True, check=True).stdout


def test_open_and_hidden_suite_differ_in_surface_mix_and_level_and_cover_every_kind() -> None:
    opened, hidden = (load_recipe(BUNDLE / "suites" / f"{name}.recipe.yaml") for name in ("open", "hidden"))
    families = [{task.family for task in recipe.tasks} for recipe in (opened, hidden)]
    for names in families:
        assert {REGISTRY[name].group for name in names} == GROUPS
    assert (len(families[0] & families[1]), len(families[1] - families[0])) == (10, 10)
    surfaces = [
        {(frame, phrasing) for task in recipe.tasks for frame in task.frames for phrasing in task.phrasings}
        for recipe in (opened, hidden)
    ]
    assert not surfaces[0] & surfaces[1]
    assert {task.levels for task in opened.tasks}.isdisjoint({task.levels for task in hidden.tasks})


@pytest.mark.django_db
def test_a_round_is_committed_to_drawn_revealed_and_rebuilt_byte_for_byte_by_one_command(tmp_path: Path) -> None:
    competition = import_bundle(BUNDLE, secrets_dir=tmp_path)
    row = competition.suites.get(visibility="hidden")
    secret, drawn = tmp_path / "skills" / "hidden.secret", row.directory
    source = ["--secret-file", secret, "--recipe", RECIPE, "--open", OPEN]

    published = tiltyard("commit", *source)  # before the round, from the secret that the import has drawn
    assert published.split()[-1] == f"sha256:{row.sha256}"
    links = twin_links(load_suite(drawn))
    assert len(links) == 50
    assert len({task for task, _ in links}) == 10

    revealed = tmp_path / "revealed"
    assert f"Publish {revealed}" in tiltyard("reveal", drawn, *source, "--out", revealed)
    tiltyard("build", RECIPE, "--secret-file", revealed, "--open", OPEN, "--out", tmp_path / "again")
    assert content(tmp_path / "again") == content(drawn)
