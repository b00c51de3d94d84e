"""Mixes: which families, levels and surfaces to draw, and in what proportion.

A mix is a YAML mapping. ``levels``, ``frames`` and ``phrasings`` at the top are defaults for every task:

    levels: {1: 5, 2: 4, 3: 1}      # level: weight; a list gives equal weights
    frames: [qa, plain]             # default: all
    phrasings: [a, b]               # default: all
    families: all                   # one task for each own basic family; or a list of groups; or leave out
    tasks:                          # tasks beside those, or overriding the task of the same name
      - {family: addition, weight: 2, levels: [2, 3]}
      - {name: sums, family: addition, frames: [chat]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from tiltyard_eval.generators.core import FRAMES, REGISTRY, GeneratorError, Item, Rng, check_surface, get_family
from tiltyard_eval.generators.gym import GROUP as GYM_GROUP
from tiltyard_eval.safe_yaml import MAX_YAML_BYTES, YamlError, load_plain_yaml

_TASK_KEYS = {"name", "family", "title", "weight", "levels", "frames", "phrasings"}
MIX_KEYS = {"levels", "frames", "phrasings", "families", "tasks", "description"}


@dataclass(frozen=True)
class TaskSpec:
    """One task of a mix or a recipe: a family with its levels (level, weight), surfaces and weight."""

    name: str
    title: str
    family: str
    weight: float
    levels: tuple[tuple[int, float], ...]
    frames: tuple[str, ...]
    phrasings: tuple[str, ...]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a small YAML mapping; raises ``GeneratorError`` when it is too large, not plain YAML or not a mapping."""
    try:
        with path.open("rb") as file:
            return load_plain_yaml(file.read(MAX_YAML_BYTES + 1), str(path))
    except (OSError, YamlError) as error:
        raise GeneratorError(str(error)) from error


def _positive(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e6:
        raise GeneratorError(f"{where}: {value!r} must be a number above 0, at most 1000000")
    return float(value)


def _levels(value: object, where: str) -> tuple[tuple[int, float], ...]:
    if isinstance(value, list):
        value = dict.fromkeys(value, 1)
    if not isinstance(value, dict) or not value:
        raise GeneratorError(f"{where}: levels must be a list of levels or a mapping of level to weight")
    return tuple((level, _positive(weight, f"{where}: weight of level {level}")) for level, weight in value.items())


def _names(value: object, everything: Sequence[str], where: str) -> tuple[str, ...]:
    if value in (None, "all"):
        return tuple(everything)
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise GeneratorError(f"{where}: give 'all' or a list of names")
    return tuple(value)


def parse_task(entry: object, defaults: Mapping[str, Any]) -> TaskSpec:
    """Check one entry of ``tasks`` and fill in the defaults; raises ``GeneratorError``."""
    if not isinstance(entry, dict) or not isinstance(entry.get("family"), str):
        raise GeneratorError(f"a task must be a mapping with a family, not {entry!r}")
    fam = get_family(entry["family"])
    name = entry.get("name", fam.name)
    where = f"task {name!r}"
    if unknown := [key for key in entry if key not in _TASK_KEYS]:
        raise GeneratorError(f"{where}: unknown keys {unknown}; known are {sorted(_TASK_KEYS)}")
    if not isinstance(name, str) or not name.replace("_", "").isalnum() or not name.isascii() or not name.islower():
        raise GeneratorError(f"{where}: a name is made of a-z, 0-9 and _")
    merged = {**defaults, **entry}
    spec = TaskSpec(
        name=name,
        title=str(entry.get("title", fam.title)),
        family=fam.name,
        weight=_positive(merged.get("weight", 1), where),
        levels=_levels(merged.get("levels"), where),
        frames=_names(merged.get("frames"), tuple(FRAMES), f"{where}: frames"),
        phrasings=_names(merged.get("phrasings"), tuple(fam.phrasings), f"{where}: phrasings"),
    )
    check_surface(fam, [level for level, _ in spec.levels], spec.frames, spec.phrasings)
    return spec


def _families(value: object) -> list[str]:
    """The names that `families` stands for: of the groups listed, or for `all` every own basic family."""
    if value == "all":
        # Extended families stay out: with them the same seed would give other bytes than before there were any.
        return [name for name, fam in REGISTRY.items() if fam.group != GYM_GROUP and not fam.extended]
    groups = list(dict.fromkeys(fam.group for fam in REGISTRY.values()))
    if not isinstance(value, list) or not value or any(group not in groups for group in value):
        raise GeneratorError(f"families: give 'all' or a list of groups, of which there are {', '.join(groups)}")
    return [name for name, fam in REGISTRY.items() if fam.group in value]


def parse_tasks(data: Mapping[str, Any]) -> tuple[TaskSpec, ...]:
    """The tasks of a mix or recipe; raises ``GeneratorError`` when there are none or one is wrong."""
    defaults = {key: data[key] for key in ("levels", "frames", "phrasings") if key in data}
    specs: dict[str, TaskSpec] = {}
    if "families" in data:
        specs = {name: parse_task({"family": name}, defaults) for name in _families(data["families"])}
    entries = data.get("tasks", [])
    if not isinstance(entries, list):
        raise GeneratorError("tasks: must be a list")
    own: set[str] = set()
    for entry in entries:
        spec = parse_task(entry, defaults)
        if spec.name in own:
            raise GeneratorError(f"task {spec.name!r} stands twice")
        own.add(spec.name)
        specs[spec.name] = spec
    if not specs:
        raise GeneratorError("no tasks: give 'families: all' or a list of tasks")
    return tuple(specs.values())


def load_mix(path: Path) -> tuple[TaskSpec, ...]:
    """Read a mix from a YAML file; raises ``GeneratorError``."""
    data = read_yaml(path)
    if unknown := [key for key in data if key not in MIX_KEYS]:
        raise GeneratorError(f"{path}: unknown keys {unknown}; known are {sorted(MIX_KEYS)}")
    try:
        return parse_tasks(data)
    except GeneratorError as error:
        raise GeneratorError(f"{path}: {error}") from error


def draw_mix(
    tasks: Sequence[TaskSpec], seed: int, count: int, exclude: AbstractSet[str] = frozenset()
) -> Iterator[Item]:
    """Yield ``count`` items, tasks by weight, leaving out prompts in ``exclude``; repeats are possible.

    Raises ``GeneratorError`` when a thousand draws in a row are excluded.
    """
    rng = Rng(seed)
    task_edges = list(accumulate(task.weight for task in tasks))
    level_edges = [list(accumulate(weight for _, weight in task.levels)) for task in tasks]
    families = [get_family(task.family) for task in tasks]
    made = refused = 0
    while made < count:
        index = rng.weighted(task_edges)
        task = tasks[index]
        level = task.levels[rng.weighted(level_edges[index])][0]
        item = families[index].item(rng, level, rng.pick(task.frames), rng.pick(task.phrasings), task.name)
        if item.prompt in exclude:
            refused += 1
            if refused == 1000:
                raise GeneratorError("a thousand draws in a row are excluded; widen the mix or exclude less")
            continue
        made, refused = made + 1, 0
        yield item
