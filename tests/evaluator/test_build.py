"""Building suites from recipes and secrets."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tiltyard_eval.__main__ import main
from tiltyard_eval.build import build_suite, check_origin, load_recipe, quotas, task_seed
from tiltyard_eval.generators import GeneratorError
from tiltyard_eval.suite import SuiteError, check_secret, commitment_of, verify_suite

SUITES = Path(__file__).parents[2] / "competitions" / "demo" / "suites"
SECRET = b"sixteen bytes or more"
RECIPE = """
name: tiny
title: Tiny
version: "1"
visibility: hidden
description: For tests.
items: 10
frames: [qa, chat]
phrasings: [a, b]
levels: {2: 2, 3: 3}
tasks:
  - {family: addition}
  - {name: backwards, title: Backwards, family: reverse_word, weight: 2, levels: [1]}
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_secret_gives_the_same_bytes(tmp_path: Path, recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    first = build_suite(recipe, SECRET, tmp_path / "a")
    second = build_suite(recipe, SECRET, tmp_path / "b")
    other = build_suite(recipe, SECRET + b"!", tmp_path / "c")
    assert _content(first.root) == _content(second.root)
    assert first.sha256 == second.sha256 != other.sha256
    assert len(first.prompts() & other.prompts()) < 5


def test_tasks_have_the_levels_and_surfaces_of_the_recipe(tmp_path: Path, recipe_file: Path) -> None:
    suite = build_suite(load_recipe(recipe_file), SECRET, tmp_path / "suite")
    sums, backwards = suite.tasks
    assert Counter(item.extra["level"] for item in sums.items) == {2: 4, 3: 6}
    assert Counter(item.prompt.split(":")[0] for item in sums.items) == {"Q": 5, "User": 5}
    assert (backwards.name, backwards.title, backwards.family, backwards.weight) == (
        "backwards",
        "Backwards",
        "strings",
        2.0,
    )
    assert {item.extra["task"] for item in backwards.items} == {"backwards"}
    assert suite.item_count == len(suite.prompts()) == 20


def test_the_seed_depends_on_secret_suite_version_and_task(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file)
    recipe_file.write_text(RECIPE.replace('"1"', '"2"'))
    newer = load_recipe(recipe_file)
    seeds = {
        task_seed(SECRET, recipe, "addition"),
        task_seed(SECRET, recipe, "backwards"),
        task_seed(SECRET + b"!", recipe, "addition"),
        task_seed(SECRET, newer, "addition"),
    }
    assert len(seeds) == 4


def test_the_secret_is_committed_to_and_can_be_proved(tmp_path: Path, recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    suite = build_suite(recipe, SECRET, tmp_path / "suite")
    assert suite.commitment == commitment_of(SECRET)
    assert SECRET not in b"".join(_content(suite.root).values())
    check_secret(suite, SECRET)
    check_origin(suite, recipe, SECRET)
    with pytest.raises(SuiteError, match="not the one committed to"):
        check_origin(suite, recipe, SECRET + b"!")
    chosen = frozenset([suite.tasks[0].items[0].prompt])
    with pytest.raises(SuiteError, match="is not what this recipe"):
        check_origin(suite, recipe, SECRET, chosen)


def test_excluded_prompts_are_left_out(tmp_path: Path, recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    first = build_suite(recipe, SECRET, tmp_path / "a")
    second = build_suite(recipe, SECRET, tmp_path / "b", first.prompts())
    assert not first.prompts() & second.prompts()


def test_an_existing_folder_a_short_secret_or_a_small_space_is_refused(tmp_path: Path, recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    (tmp_path / "there").mkdir()
    with pytest.raises(SuiteError, match="exists; remove it"):
        build_suite(recipe, SECRET, tmp_path / "there")
    with pytest.raises(SuiteError, match="at least 16 are needed"):
        build_suite(recipe, b"short", tmp_path / "new")
    recipe_file.write_text(RECIPE.replace("family: addition", "family: roman, levels: [1]").replace("10\n", "100\n"))
    with pytest.raises(GeneratorError, match="task 'roman' has too few different questions at level 1"):
        build_suite(load_recipe(recipe_file), SECRET, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "tiny.recipe.yaml"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("items: 10", "items: 0"), "items: must be an integer"),
        (("items: 10", "items: true"), "items: must be an integer"),
        (("items: 10", "items: 10\nmax_gen_toks: 100000"), "max_gen_toks: must be"),
        (('version: "1"', "version: 1"), "version (in quotes)"),
        (("visibility: hidden", "visibility: x"), "visibility must be"),
        (("name: tiny", "name: Tiny Suite"), "is no name"),
        (("title: Tiny", "titel: Tiny"), "unknown keys"),
        (("family: addition", "family: cooking"), "no family 'cooking'"),
    ],
)
def test_a_wrong_recipe_gets_one_clear_error(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], message: str
) -> None:
    recipe_file.write_text(RECIPE.replace(*change, 1))
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    out = tmp_path / "out"
    assert main(["suite", "build", str(recipe_file), "--secret-file", str(secret), "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [([1, 1, 1], 10, [4, 3, 3]), ([2, 3], 10, [4, 6]), ([1], 7, [7]), ([1, 1000], 5, [0, 5])],
)
def test_quotas_are_whole_and_proportional(weights: list[float], total: int, expected: list[int]) -> None:
    assert quotas(weights, total) == expected


def test_the_published_open_suite_comes_from_its_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--secret-file", str(SUITES / "open.secret"), "--recipe", str(SUITES / "open.recipe.yaml")]
    assert main(["suite", "verify", str(SUITES / "open"), *arguments]) == 0
    assert "demo-open version" in capsys.readouterr().out


def test_hidden_and_open_share_no_prompt_whatever_the_secret(tmp_path: Path) -> None:
    """The demo's surfaces are disjoint, so this holds for every open suite of the recipe, also one not excluded."""
    published = verify_suite(SUITES / "open")
    recipes = [load_recipe(SUITES / f"{name}.recipe.yaml") for name in ("open", "hidden")]
    for attempt in range(3):
        secret = os.urandom(32)
        opened = build_suite(recipes[0], secret, tmp_path / f"open{attempt}")
        hidden = build_suite(recipes[1], secret, tmp_path / f"hidden{attempt}", opened=published)
        assert not opened.prompts() & hidden.prompts()
        assert not published.prompts() & hidden.prompts()
        assert len(hidden.tasks) >= 8
        assert hidden.item_count >= 480
    surfaces = [
        {
            (task.family, frame, phrasing)
            for task in recipe.tasks
            for frame in task.frames
            for phrasing in task.phrasings
        }
        for recipe in recipes
    ]
    assert not surfaces[0] & surfaces[1]
    families = [{task.family for task in recipe.tasks} for recipe in recipes]
    assert len(families[0] & families[1]) >= 4
    assert len(families[1] - families[0]) >= 3


def test_training_data_can_leave_out_the_open_suite(tmp_path: Path) -> None:
    out = tmp_path / "train.jsonl"
    arguments = ["--suite-recipe", str(SUITES / "open.recipe.yaml"), "--exclude", str(SUITES / "open")]
    assert main(["generate", *arguments, "--seed", "1", "--count", "20000", "--out", str(out)]) == 0
    prompts = {json.loads(line)["prompt"] for line in out.read_text().splitlines()}
    assert not prompts & verify_suite(SUITES / "open").prompts()
