"""Paraphrase twins: how a hidden suite is built with them, checked, committed to and revealed."""

import json
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tiltyard_eval.__main__ import main
from tiltyard_eval.build import build_suite, load_recipe
from tiltyard_eval.build_twins import check_twins
from tiltyard_eval.generators import REGISTRY, GeneratorError, get_family
from tiltyard_eval.generators.gym import GROUP as GYM_GROUP
from tiltyard_eval.suite import Suite, SuiteError, load_suite, lock_suite
from tiltyard_eval.twins import twin_links

SECRET = b"sixteen bytes or more"
OPEN = """
name: open-one
title: Open
version: "1"
visibility: open
description: For tests.
items: 20
frames: [qa, plain]
phrasings: [a, b]
levels: {2: 1, 3: 1}
tasks:
  - {family: addition}
  - {family: sort_words}
"""
HIDDEN = """
name: hidden-one
title: Hidden
version: "1"
visibility: hidden
description: For tests.
items: 12
twins: {of: open-one, share: 0.25}
frames: [chat, problem]
phrasings: [c, d]
levels: {2: 1, 3: 2}
tasks:
  - {family: addition}
  - {family: sort_words}
  - {family: roman, levels: [4]}
"""


@pytest.fixture
def opened(tmp_path: Path) -> Suite:
    (tmp_path / "open.yaml").write_text(OPEN)
    return build_suite(load_recipe(tmp_path / "open.yaml"), SECRET, tmp_path / "open")


def build(tmp_path: Path, opened: Suite | None, recipe: str = HIDDEN, secret: bytes = SECRET) -> Suite:
    path = tmp_path / "hidden.yaml"
    path.write_text(recipe)
    shutil.rmtree(tmp_path / "hidden", ignore_errors=True)
    return build_suite(load_recipe(path), secret, tmp_path / "hidden", opened=opened)


def test_twins_have_the_skeleton_and_level_of_open_items_and_other_words(tmp_path: Path, opened: Suite) -> None:
    hidden = build(tmp_path, opened)
    items = {(task.name, index): item for task in opened.tasks for index, item in enumerate(task.items)}
    links = twin_links(hidden)
    assert Counter(task for task, _ in links) == {"addition": 3, "sort_words": 3}
    assert len(set(links.values())) == 6
    assert not hidden.prompts() & opened.prompts()
    for (task, index), key in links.items():
        twin = next(one for one in hidden.tasks if one.name == task).items[index]
        assert twin.answer == items[key].answer
        assert twin.cluster == items[key].cluster
        assert twin.extra["level"] == items[key].extra["level"]
        assert twin.prompt.startswith(("User: ", "Problem: "))
        assert items[key].prompt.startswith("Q: ") or items[key].prompt.endswith("\nAnswer:")
    check_twins(hidden, opened)


def test_every_own_family_can_make_twins(tmp_path: Path) -> None:
    own = [name for name, fam in REGISTRY.items() if fam.group != GYM_GROUP]
    tasks = "tasks:\n" + "".join(f"  - {{family: {name}}}\n" for name in own)
    opens, hides = (text.split("tasks:")[0].replace("items: 12", "items: 8") + tasks for text in (OPEN, HIDDEN))
    (tmp_path / "open.yaml").write_text(opens.replace("levels: {2: 1, 3: 1}", "levels: [4]"))
    opened = build_suite(load_recipe(tmp_path / "open.yaml"), SECRET, tmp_path / "open")
    hidden = build(tmp_path, opened, hides.replace("levels: {2: 1, 3: 2}", "levels: [4]"))
    assert Counter(task for task, _ in twin_links(hidden)) == dict.fromkeys(own, 2)
    check_twins(hidden, opened)


def test_only_twins_repeat_a_skeleton_and_levels_stay_exact(tmp_path: Path, opened: Suite) -> None:
    hidden = build(tmp_path, opened)
    known = {item.cluster for task in opened.tasks for item in task.items}
    for task in hidden.tasks:
        assert {item.twin is not None for item in task.items if item.cluster in known} <= {True}
    assert Counter(item.extra["level"] for item in hidden.tasks[0].items) == {2: 4, 3: 8}
    assert Counter(item.prompt.split(":")[0] for item in hidden.tasks[0].items) == {"User": 6, "Problem": 6}


def test_the_secret_decides_which_open_items_have_twins(tmp_path: Path, opened: Suite) -> None:
    drawn = [frozenset(twin_links(build(tmp_path, opened, secret=SECRET + bytes([n]))).values()) for n in range(5)]
    assert len(set(drawn)) == 5
    first = load_suite(tmp_path / "hidden").sha256
    assert build(tmp_path, opened, secret=SECRET + bytes([4])).sha256 == first


def test_a_twin_can_be_rendered_from_the_open_folder_alone(opened: Suite) -> None:
    for task in opened.tasks:
        for item in task.items:
            skeleton = item.skeleton
            assert skeleton is not None
            frame, phrasing = get_family(skeleton.family).surface(skeleton.fields, item.prompt) or ("", "")
            assert get_family(skeleton.family).prompt(skeleton.fields, frame, phrasing) == item.prompt


def test_the_link_is_in_the_hidden_data_alone(tmp_path: Path, opened: Suite) -> None:
    hidden = build(tmp_path, opened)
    assert all("twin" not in path.read_text() for path in opened.root.rglob("*.*"))
    lines = [json.loads(line) for path in (hidden.root / "data").iterdir() for line in path.read_text().splitlines()]
    assert sum("twin" in line for line in lines) == 6


def test_the_open_suite_is_named_and_another_one_is_refused(tmp_path: Path, opened: Suite) -> None:
    with pytest.raises(SuiteError, match=r"makes twins of suite 'open-one': give its folder \(--open\)"):
        build(tmp_path, None)
    hidden = build(tmp_path, opened)
    assert hidden.twins_of is not None
    assert hidden.twins_of.sha256 == opened.sha256
    (tmp_path / "open.yaml").write_text(OPEN.replace("open-one", "open-two"))
    other = build_suite(load_recipe(tmp_path / "open.yaml"), SECRET, tmp_path / "other")
    with pytest.raises(SuiteError, match=r"of the open suite 'open-one', not of the open suite 'open-two'"):
        build(tmp_path, other)
    hidden = build(tmp_path, opened)
    with pytest.raises(SuiteError, match=r"has twins of 'open-one' version 1 \(sha256:.*\), not of 'open-two'"):
        check_twins(hidden, other)
    with pytest.raises(SuiteError, match="makes no twins; exclude"):
        build(tmp_path, opened, HIDDEN.replace("twins: {of: open-one, share: 0.25}\n", ""))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("share: 0.25", "share: 0"), "share must be a number above 0"),
        (("share: 0.25", "share: true"), "share must be a number above 0"),
        (("share: 0.25", "part: 0.25"), "must be a mapping with `of`"),
        (("visibility: hidden", "visibility: open"), "only a hidden suite has twins"),
        (("items: 12\ntwins: {of: open-one, share: 0.25}", "items: 20\ntwins: {of: open-one, share: 1}"), "only 1"),
        (("levels: {2: 1, 3: 2}", "levels: [4]"), "only 0 of 3 twins can be made"),
        (("frames: [chat, problem]\nphrasings: [c, d]", "frames: [qa, plain]\nphrasings: [a]"), None),
        (("frames: [chat, problem]\nphrasings: [c, d]", "frames: [qa]\nphrasings: [a]"), None),
    ],
)
def test_twins_that_cannot_be_made_are_refused(
    tmp_path: Path, opened: Suite, change: tuple[str, str], message: str | None
) -> None:
    recipe = HIDDEN.replace(*change)
    if message is None:  # some open items stand on another frame and another phrasing, which is enough
        check_twins(build(tmp_path, opened, recipe), opened)
        return
    with pytest.raises((SuiteError, GeneratorError), match=message):
        build(tmp_path, opened, recipe)


def test_an_open_suite_without_skeletons_has_no_twins(tmp_path: Path, opened: Suite) -> None:
    path = opened.root / "data" / "addition.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, "skeleton": lines[0]["skeleton"]}) + "\n" for line in lines))
    with pytest.raises(SuiteError, match="line 2: the prompt is not what family 'addition' makes of its skeleton"):
        build(tmp_path, lock_suite(opened.root))
    for line in lines:
        del line["skeleton"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SuiteError, match="line 1: no skeleton or no level"):
        build(tmp_path, lock_suite(opened.root))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"twin": {"task": "addition", "index": 999}}, "is no twin of the open item"),
        ({"level": 5}, "has another level"),
        ({"prompt": "What?"}, "is not what family"),
    ],
)
def test_a_false_link_is_found(tmp_path: Path, opened: Suite, change: dict[str, object], message: str) -> None:
    hidden = build(tmp_path, opened)
    path = hidden.root / "data" / "addition.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    next(line for line in lines if "twin" in line).update(change)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SuiteError, match=message):
        check_twins(lock_suite(hidden.root), opened)


def test_twins_need_a_suite_that_says_of_what(tmp_path: Path, opened: Suite) -> None:
    hidden = build(tmp_path, opened)
    path = hidden.root / "suite.yaml"
    meta = yaml.safe_load(path.read_text())
    for wrong in ({"name": "open-one"}, "open-one", {**meta["twins_of"], "sha256": "x"}):
        path.write_text(yaml.safe_dump({**meta, "twins_of": wrong}))
        with pytest.raises(SuiteError, match=r"suite.yaml: (twins_of|sha256)"):
            lock_suite(hidden.root)
    del meta["twins_of"]
    path.write_text(yaml.safe_dump(meta))
    with pytest.raises(SuiteError, match=r"has twins, but suite\.yaml does not say of which suite"):
        lock_suite(hidden.root)


@pytest.mark.parametrize(
    "change",
    [
        {"skeleton": None},
        {"skeleton": {"family": "addition"}},
        {"skeleton": {"family": "addition", "fields": {}}},
        {"skeleton": {"family": "addition", "fields": {"a": 3}}},
        {"skeleton": {"family": "addition", "fields": {"A b": "3"}}},
        {"skeleton": {"family": "addition", "fields": {"a": "2001-12-31"}}},
        {"skeleton": {"family": "addition", "fields": {f"a{n}": "3" for n in range(17)}}},
        {"twin": {"task": "addition", "index": -1}},
        {"twin": {"task": "addition", "index": True}},
        {"twin": {"task": "../addition", "index": 0}},
        {"twin": ["addition", 0]},
    ],
)
def test_a_malformed_skeleton_or_link_is_refused(opened: Suite, change: dict[str, object]) -> None:
    path = opened.root / "data" / "addition.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0].update(change)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SuiteError, match=r"data/addition.jsonl line 1: (skeleton|twin)"):
        lock_suite(opened.root)


def test_commit_build_reveal_and_verify_take_the_open_suite(
    tmp_path: Path, opened: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, secret, hidden, revealed = (tmp_path / name for name in ("r.yaml", "secret", "h i d", "revealed"))
    recipe.write_text(HIDDEN)

    def run(*arguments: object) -> int:
        return main([str(argument) for argument in arguments])

    assert run("suite", "commit", "--secret-file", secret, "--recipe", recipe) == 2
    assert "give its folder (--open)" in capsys.readouterr().err
    assert run("suite", "commit", "--secret-file", secret, "--recipe", recipe, "--open", opened.root) == 0
    published = capsys.readouterr().out.split()[-1]
    assert run("suite", "build", recipe, "--secret-file", secret, "--open", opened.root, "--out", hidden) == 0
    assert run("suite", "verify", hidden, "--sha256", published, "--open", opened.root) == 0
    keys = ["--secret-file", secret, "--recipe", recipe, "--open", opened.root]
    capsys.readouterr()
    assert run("suite", "reveal", hidden, *keys, "--out", revealed) == 0
    printed = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert printed[-2:] == ["--open", str(opened.root)]
    assert run(*printed[3:]) == 0
    (tmp_path / "open.yaml").write_text(OPEN.replace("open-one", "open-two"))
    other = build_suite(load_recipe(tmp_path / "open.yaml"), SECRET, tmp_path / "other")
    printed[-1] = str(other.root)
    assert run(*printed[3:]) == 2
    assert "not of 'open-two' version 1" in capsys.readouterr().err
