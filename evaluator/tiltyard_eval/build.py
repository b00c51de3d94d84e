"""Building a suite from a recipe and a secret.

Each task's stream of draws starts from HMAC-SHA256(secret, suite, version and task name), so that one secret gives
independent tasks, and nobody without it can make the questions. ``suite.yaml`` holds the secret's hash: publishing it
before a round and the secret after it proves that the questions were not chosen in between. A hidden suite may hold
paraphrase twins of open items; see ``build_twins``.
"""

from __future__ import annotations

import hmac
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml

from tiltyard_eval.build_twins import OpenItems, Slot, check_open_suite, draw_twins, read_open_items
from tiltyard_eval.checks import METRIC as CHECKS_METRIC
from tiltyard_eval.generators.core import GeneratorError, Item, Rng, get_family
from tiltyard_eval.generators.mix import TaskSpec, parse_tasks, read_yaml
from tiltyard_eval.identity import sha256_of
from tiltyard_eval.suite import Suite, SuiteError, check_secret, commitment_of, lock_suite
from tiltyard_eval.suite.reading import MAX_ITEMS_PER_TASK, check_name, check_text
from tiltyard_eval.suite.task_yaml import EXACT_MATCH, MAX_GEN_TOKS, task_yaml

MIN_SECRET_BYTES = 16
_DRAWS_PER_ITEM = 1000
_RECIPE_KEYS = {
    *("name", "title", "version", "visibility", "description", "items", "max_gen_toks"),
    *("levels", "frames", "phrasings", "tasks", "twins"),
}


@dataclass(frozen=True)
class TwinPlan:
    """Which share (0..1) of the items of each family shared with the open suite named `of` are twins of its items."""

    of: str
    share: float


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
    twins: TwinPlan | None = None


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
        twins=_twin_plan(data, path),
    )


def build_suite(
    recipe: Recipe, secret: bytes, out: Path, exclude: AbstractSet[str] = frozenset(), *, opened: Suite | None = None
) -> Suite:
    """Make the suite's folder and lock it.

    Args:
        recipe: What to make.
        secret: At least 16 bytes; keep it until the round is over.
        out: The folder to make; must not exist. It appears complete or not at all, readable by every user, because
            an evaluator that runs as another user mounts it: keep a hidden suite in a private parent folder.
        exclude: Prompts that must not occur, such as those of the open suite.
        opened: The open suite that the recipe's twins are twins of. No item has one of its prompts, and only the twins
            have one of its skeletons.

    Raises:
        SuiteError: When the secret is short, the folder exists, or the open suite is missing, another, or has no
            skeletons.
        GeneratorError: When a task cannot give enough different questions, or twins.
    """
    if len(secret) < MIN_SECRET_BYTES:
        raise SuiteError(f"the secret has {len(secret)} bytes; at least {MIN_SECRET_BYTES} are needed")
    if out.exists():
        raise SuiteError(f"{out} exists; remove it or choose another folder")
    _check_opened(recipe, opened)
    taken = set(exclude) | (opened.prompts() if opened else set())
    pool = read_open_items(opened, [task.family for task in recipe.tasks]) if opened else OpenItems({}, frozenset())
    data = _draw_tasks(recipe, secret, pool, taken)
    groups = {task.name: get_family(task.family).group for task in recipe.tasks}
    return write_suite(out, recipe, data, groups, commitment=commitment_of(secret), opened=opened)


def write_suite(
    out: Path,
    recipe: Recipe,
    data: Mapping[str, list[Item]],
    groups: Mapping[str, str],
    *,
    commitment: str | None,
    opened: Suite | None = None,
) -> Suite:
    """Write questions and their families' groups, by task, as a locked suite; ``out`` appears whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write(work, recipe, data, groups, commitment=commitment, opened=opened)
        lock_suite(work)
        _make_readable(work)
        work.rename(out)
    except BaseException:  # also on an interrupt: leave no half-made folder behind
        shutil.rmtree(work, ignore_errors=True)
        raise
    return lock_suite(out)


def check_origin(
    suite: Suite,
    recipe: Recipe,
    secret: bytes,
    exclude: AbstractSet[str] = frozenset(),
    *,
    opened: Suite | None = None,
) -> None:
    """Raise ``SuiteError`` unless building anew from the revealed secret gives exactly this suite."""
    check_secret(suite, secret)
    if opened is not None:
        check_open_suite(suite, opened)
    with tempfile.TemporaryDirectory(prefix="tiltyard-suite-") as folder:
        rebuilt = build_suite(recipe, secret, Path(folder) / "suite", exclude, opened=opened)
    if rebuilt.sha256 != suite.sha256:
        raise SuiteError(f"suite {suite.name!r} is not what this recipe, secret and exclusion give")


def task_seed(secret: bytes, recipe: Recipe, task: str) -> int:
    """The seed of one task: HMAC-SHA256 over the suite's name, its version and the task's name."""
    return _seed(secret, "suite", recipe, task)


def _seed(secret: bytes, purpose: str, recipe: Recipe, task: str) -> int:
    message = f"tiltyard {purpose}\0{recipe.name}\0{recipe.version}\0{task}".encode()
    return int.from_bytes(hmac.digest(secret, message, "sha256"), "big")


def quotas(weights: list[float], total: int) -> list[int]:
    """Split ``total`` in proportion to the weights by the method of largest remainders; ties go to the first."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _slots(task: TaskSpec, count: int, rng: Rng) -> Iterator[Slot]:
    """Level, frame and phrasing of each question: levels in exact proportion, surfaces in turn."""
    shares = quotas([weight for _, weight in task.levels], count)
    levels = [level for (level, _), share in zip(task.levels, shares, strict=True) for _ in range(share)]
    surfaces = rng.shuffled([(frame, phrasing) for frame in task.frames for phrasing in task.phrasings])
    for level, (frame, phrasing) in zip(rng.shuffled(levels), islice(cycle(surfaces), count), strict=True):
        yield level, frame, phrasing


def _check_opened(recipe: Recipe, opened: Suite | None) -> None:
    if recipe.twins is None:
        if opened is not None:
            raise SuiteError(f"recipe {recipe.name!r} makes no twins; exclude the open suite's prompts instead")
        return
    if opened is None:
        raise SuiteError(f"recipe {recipe.name!r} makes twins of suite {recipe.twins.of!r}: give its folder (--open)")
    if opened.name != recipe.twins.of or opened.visibility != "open":
        raise SuiteError(
            f"recipe {recipe.name!r} makes twins of the open suite {recipe.twins.of!r}, not of the {opened.visibility} "
            f"suite {opened.name!r}"
        )


def _draw_tasks(recipe: Recipe, secret: bytes, pool: OpenItems, taken: set[str]) -> dict[str, list[Item]]:
    """Draw all questions, none of which is in ``taken``, and add them to it."""
    data: dict[str, list[Item]] = {}
    used: set[tuple[str, int]] = set()
    for task in recipe.tasks:
        rng = Rng(task_seed(secret, recipe, task.name))
        slots = list(_slots(task, recipe.items, rng))
        twins: dict[int, Item] = {}
        if recipe.twins is not None and pool.by_family[task.family]:
            wanted = quotas([recipe.twins.share, 1.0 - recipe.twins.share], recipe.items)[0]
            rest = pool.without(used)
            stream = Rng(_seed(secret, "twins", recipe, task.name))
            twins = draw_twins(task, slots, wanted, pool=rest, taken=taken, rng=stream)
            used |= {item.twin for item in twins.values() if item.twin is not None}
        data[task.name] = [
            twins[number] if number in twins else _draw_item(task, slot, rng, pool.clusters, taken)
            for number, slot in enumerate(slots)
        ]
    return data


def _draw_item(task: TaskSpec, slot: Slot, rng: Rng, closed: AbstractSet[str], taken: set[str]) -> Item:
    """A question whose prompt is not in ``taken``, to which it is added, and whose skeleton is not in ``closed``."""
    level, frame, phrasing = slot
    fam = get_family(task.family)
    for _ in range(_DRAWS_PER_ITEM):
        item = fam.item(rng, level, frame, phrasing, task.name)
        if item.prompt not in taken and item.cluster not in closed:
            taken.add(item.prompt)
            return item
    raise GeneratorError(f"task {task.name!r} has too few different questions at level {level}: ask for fewer")


def _write(
    folder: Path,
    recipe: Recipe,
    data: Mapping[str, list[Item]],
    groups: Mapping[str, str],
    *,
    commitment: str | None,
    opened: Suite | None,
) -> None:
    (folder / "tasks").mkdir()
    (folder / "data").mkdir()
    meta: dict[str, Any] = {
        "name": recipe.name,
        "title": recipe.title,
        "version": recipe.version,
        "visibility": recipe.visibility,
        "description": recipe.description,
        **({"commitment": commitment} if commitment else {}),
        "recipe_sha256": recipe.sha256,
        **({"twins_of": {"name": opened.name, "version": opened.version, "sha256": opened.sha256}} if opened else {}),
        "tasks": [
            {"name": task.name, "title": task.title, "family": groups[task.name], "weight": task.weight}
            for task in recipe.tasks
        ],
    }
    _write_yaml(folder / "suite.yaml", meta)
    for task in recipe.tasks:
        metric = CHECKS_METRIC if any(item.checks for item in data[task.name]) else EXACT_MATCH
        config = task_yaml(task.name, task.title, recipe.max_gen_toks, metric)
        _write_yaml(folder / "tasks" / f"{task.name}.yaml", config)
        lines = "".join(item.to_suite_json() + "\n" for item in data[task.name])
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


def _twin_plan(data: Mapping[str, Any], path: Path) -> TwinPlan | None:
    value = data.get("twins")
    if value is None:
        return None
    where = f"{path}: twins"
    if data["visibility"] != "hidden":
        raise SuiteError(f"{where}: only a hidden suite has twins of an open one")
    if not isinstance(value, dict) or value.keys() != {"of", "share"}:
        raise SuiteError(f"{where}: must be a mapping with `of`, the open suite's name, and `share`")
    share = value["share"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise SuiteError(f"{where}: share must be a number above 0, at most 1")
    return TwinPlan(check_name(value["of"], f"{where}: of"), float(share))


def _with_text_keys(value: Any) -> Any:
    """The same value with every key as text, as JSON has it: levels are integers in YAML."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_text_keys(inner) for inner in value]
    return value
