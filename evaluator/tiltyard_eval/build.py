"""Building a suite from a recipe and a secret.

Each task's stream of draws starts from HMAC-SHA256(secret, suite, version and task name), so that one secret gives
independent tasks, and nobody without it can make the questions. ``suite.yaml`` holds the secret's hash: publishing it
before a round and the secret after it proves that the questions were not chosen in between.
"""

from __future__ import annotations

import hmac
import shutil
import tempfile
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml

from tiltyard_eval.generators.core import GeneratorError, Item, Rng, get_family
from tiltyard_eval.generators.mix import TaskSpec, parse_tasks, read_yaml
from tiltyard_eval.identity import sha256_of
from tiltyard_eval.suite import Suite, SuiteError, check_secret, commitment_of, lock_suite
from tiltyard_eval.suite.reading import MAX_ITEMS_PER_TASK, check_name, check_text
from tiltyard_eval.suite.task_yaml import MAX_GEN_TOKS, task_yaml

MIN_SECRET_BYTES = 16
_DRAWS_PER_ITEM = 1000
_RECIPE_KEYS = {
    *("name", "title", "version", "visibility", "description", "items", "max_gen_toks"),
    *("levels", "frames", "phrasings", "tasks"),
}


@dataclass(frozen=True)
class Recipe:
    """What a suite is made of, but for the secret; ``items`` questions for each task."""

    name: str
    title: str
    version: str
    visibility: str
    description: str
    items: int
    max_gen_toks: int
    tasks: tuple[TaskSpec, ...]
    sha256: str


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; raises ``GeneratorError`` or ``SuiteError`` with the reason."""
    data = read_yaml(path)
    if unknown := sorted(key for key in data if key not in _RECIPE_KEYS):
        raise SuiteError(f"{path}: unknown keys {unknown}; known are {sorted(_RECIPE_KEYS)}")
    try:
        tasks = parse_tasks(data)
    except GeneratorError as error:
        raise GeneratorError(f"{path}: {error}") from error
    if data.get("visibility") not in ("open", "hidden"):
        raise SuiteError(f"{path}: visibility must be open or hidden")
    return Recipe(
        name=check_name(data.get("name"), f"{path}: name"),
        title=check_text(data.get("title"), f"{path}: title", 200),
        version=check_text(data.get("version"), f"{path}: version (in quotes)", 40),
        visibility=str(data["visibility"]),
        description=check_text(data.get("description"), f"{path}: description", 4000),
        items=_count(data.get("items"), MAX_ITEMS_PER_TASK, f"{path}: items"),
        max_gen_toks=_count(data.get("max_gen_toks", 32), MAX_GEN_TOKS, f"{path}: max_gen_toks"),
        tasks=tasks,
        sha256="sha256:" + sha256_of(_with_text_keys(data)),
    )


def build_suite(recipe: Recipe, secret: bytes, out: Path, exclude: AbstractSet[str] = frozenset()) -> Suite:
    """Make the suite's folder and lock it.

    Args:
        recipe: What to make.
        secret: At least 16 bytes; keep it until the round is over.
        out: The folder to make; must not exist. It appears complete or not at all, readable by every user, because
            an evaluator that runs as another user mounts it: keep a hidden suite in a private parent folder.
        exclude: Prompts that must not occur, such as those of the open suite.

    Raises:
        SuiteError: When the secret is short or the folder exists.
        GeneratorError: When a task cannot give enough different questions.
    """
    if len(secret) < MIN_SECRET_BYTES:
        raise SuiteError(f"the secret has {len(secret)} bytes; at least {MIN_SECRET_BYTES} are needed")
    if out.exists():
        raise SuiteError(f"{out} exists; remove it or choose another folder")
    taken: set[str] = set(exclude)
    data = {task.name: _draw_task(recipe, task, secret, taken) for task in recipe.tasks}
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write(work, recipe, data, commitment_of(secret))
        lock_suite(work)
        _make_readable(work)
        work.rename(out)
    except BaseException:  # also on an interrupt: leave no half-made folder behind
        shutil.rmtree(work, ignore_errors=True)
        raise
    return lock_suite(out)


def check_origin(suite: Suite, recipe: Recipe, secret: bytes, exclude: AbstractSet[str] = frozenset()) -> None:
    """Raise ``SuiteError`` unless building anew from the revealed secret gives exactly this suite."""
    check_secret(suite, secret)
    with tempfile.TemporaryDirectory(prefix="tiltyard-suite-") as folder:
        rebuilt = build_suite(recipe, secret, Path(folder) / "suite", exclude)
    if rebuilt.sha256 != suite.sha256:
        raise SuiteError(f"suite {suite.name!r} is not what this recipe, secret and exclusion give")


def task_seed(secret: bytes, recipe: Recipe, task: str) -> int:
    """The seed of one task: HMAC-SHA256 over the suite's name, its version and the task's name."""
    message = f"tiltyard suite\0{recipe.name}\0{recipe.version}\0{task}".encode()
    return int.from_bytes(hmac.digest(secret, message, "sha256"), "big")


def quotas(weights: list[float], total: int) -> list[int]:
    """Split ``total`` in proportion to the weights by the method of largest remainders; ties go to the first."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _slots(task: TaskSpec, count: int, rng: Rng) -> Iterator[tuple[int, str, str]]:
    """Level, frame and phrasing of each question: levels in exact proportion, surfaces in turn."""
    shares = quotas([weight for _, weight in task.levels], count)
    levels = [level for (level, _), share in zip(task.levels, shares, strict=True) for _ in range(share)]
    surfaces = rng.shuffled([(frame, phrasing) for frame in task.frames for phrasing in task.phrasings])
    for level, (frame, phrasing) in zip(rng.shuffled(levels), islice(cycle(surfaces), count), strict=True):
        yield level, frame, phrasing


def _draw_task(recipe: Recipe, task: TaskSpec, secret: bytes, taken: set[str]) -> list[Item]:
    """Draw one task's questions, none of which is in ``taken``, and add them to it."""
    rng = Rng(task_seed(secret, recipe, task.name))
    fam = get_family(task.family)
    items: list[Item] = []
    for level, frame, phrasing in _slots(task, recipe.items, rng):
        for _ in range(_DRAWS_PER_ITEM):
            item = fam.item(rng, level, frame, phrasing, task.name)
            if item.prompt not in taken:
                break
        else:
            raise GeneratorError(f"task {task.name!r} has too few different questions at level {level}: ask for fewer")
        taken.add(item.prompt)
        items.append(item)
    return items


def _write(folder: Path, recipe: Recipe, data: dict[str, list[Item]], commitment: str) -> None:
    (folder / "tasks").mkdir()
    (folder / "data").mkdir()
    meta: dict[str, Any] = {
        "name": recipe.name,
        "title": recipe.title,
        "version": recipe.version,
        "visibility": recipe.visibility,
        "description": recipe.description,
        "commitment": commitment,
        "recipe_sha256": recipe.sha256,
        "tasks": [
            {"name": task.name, "title": task.title, "family": get_family(task.family).group, "weight": task.weight}
            for task in recipe.tasks
        ],
    }
    _write_yaml(folder / "suite.yaml", meta)
    for task in recipe.tasks:
        _write_yaml(folder / "tasks" / f"{task.name}.yaml", task_yaml(task.name, task.title, recipe.max_gen_toks))
        lines = "".join(item.to_json() + "\n" for item in data[task.name])
        (folder / "data" / f"{task.name}.jsonl").write_text(lines, encoding="ascii", newline="\n")


def _make_readable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _write_yaml(path: Path, data: dict[str, Any]) -> None:
    path.write_text(
        yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8", newline="\n"
    )


def _count(value: object, maximum: int, where: str) -> int:
    if type(value) is not int or not 1 <= value <= maximum:
        raise SuiteError(f"{where}: must be an integer from 1 to {maximum}")
    return value


def _with_text_keys(value: Any) -> Any:
    """The same value with every key as text, as JSON has it: levels are integers in YAML."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_text_keys(inner) for inner in value]
    return value
