"""Choosing and making paraphrase twins when a hidden suite is built.

A twin has the skeleton and the level of an open item, and another frame and another phrasing. Which open items have
twins is drawn by the secret, with a stream of its own, so that it is not known before the reveal and the other
questions do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from tiltyard_eval.generators.core import Family, GeneratorError, Item, Rng, get_family
from tiltyard_eval.generators.mix import TaskSpec
from tiltyard_eval.skeletons import Skeleton
from tiltyard_eval.suite import Suite, SuiteError, SuiteItem

Slot = tuple[int, str, str]
"""Level, frame and phrasing of a question to be made."""


@dataclass(frozen=True)
class OpenItem:
    """An open item that a twin can be made of, and the surface that it stands on."""

    key: tuple[str, int]
    level: int
    skeleton: Skeleton
    answer: str
    frame: str
    phrasing: str


@dataclass(frozen=True)
class OpenItems:
    """What a hidden suite is drawn against: the open suite's items by family, and the names of their clusters."""

    by_family: Mapping[str, Sequence[OpenItem]]
    clusters: AbstractSet[str]

    def without(self, used: AbstractSet[tuple[str, int]]) -> OpenItems:
        """The same but for these items."""
        left = {name: [item for item in items if item.key not in used] for name, items in self.by_family.items()}
        return OpenItems(left, self.clusters)


def read_open_items(opened: Suite, families: Iterable[str]) -> OpenItems:
    """The open suite's items of these families, with their surfaces.

    Raises:
        SuiteError: An item has no skeleton or level, or is not what its skeleton gives.
    """
    found: dict[str, list[OpenItem]] = {name: [] for name in families}
    clusters = set()
    for task in opened.tasks:
        for index, item in enumerate(task.items):
            where = f"suite {opened.name!r}: {task.data_file} line {index + 1}"
            skeleton = item.skeleton
            if skeleton is None or item.cluster is None or "level" not in item.extra:
                raise SuiteError(f"{where}: no skeleton or no level, so no twin can be made; build the suite anew")
            clusters.add(item.cluster)
            if skeleton.family in found:
                frame, phrasing = _surface(get_family(skeleton.family), skeleton, item, where)
                key, level = (task.name, index), int(item.extra["level"])
                found[skeleton.family].append(OpenItem(key, level, skeleton, item.answer, frame, phrasing))
    return OpenItems(found, clusters)


def draw_twins(
    task: TaskSpec, slots: Sequence[Slot], wanted: int, *, pool: OpenItems, taken: set[str], rng: Rng
) -> dict[int, Item]:
    """Make twins for some of a task's slots, at random; each open item is used at most once.

    Args:
        task: A task of the hidden suite.
        slots: All slots of the task; a twin takes the level and the surface of its slot.
        wanted: How many twins to make.
        pool: What they are made of.
        taken: Prompts that must not occur; the twins' are added.
        rng: The stream that decides.

    Raises:
        GeneratorError: When fewer can be made; the message says how many.
    """
    fam = get_family(task.family)
    left = rng.shuffled(pool.by_family[task.family])
    twins: dict[int, Item] = {}
    for number in rng.shuffled(range(len(slots))):
        if len(twins) == wanted:
            break
        level, frame, phrasing = slots[number]
        for candidate in left:
            if candidate.level != level or candidate.frame == frame or candidate.phrasing == phrasing:
                continue
            prompt = fam.prompt(candidate.skeleton.fields, frame, phrasing)
            if prompt not in taken and len(prompt) <= fam.max_prompt_chars:
                twins[number] = _twin_of(candidate, prompt, task)
                taken.add(prompt)
                left.remove(candidate)
                break
    if len(twins) < wanted:
        raise GeneratorError(
            f"task {task.name!r}: only {len(twins)} of {wanted} twins can be made. They need open items of family "
            f"{task.family!r} at the task's levels, and frames and phrasings that those do not have; or lower the share"
        )
    return twins


def _twin_of(item: OpenItem, prompt: str, task: TaskSpec) -> Item:
    checks = get_family(task.family).checks_of(item.skeleton.fields)
    return Item(prompt, item.answer, task.name, item.level, item.skeleton, item.key, checks)


def check_twins(hidden: Suite, opened: Suite) -> None:
    """Check every link of a suite with twins against the open suite it names.

    Raises:
        SuiteError: It is another suite, or an item is not a twin of the open item that it names.
    """
    check_open_suite(hidden, opened)
    items = {(task.name, index): item for task in opened.tasks for index, item in enumerate(task.items)}
    for task in hidden.tasks:
        for index, item in enumerate(task.items):
            if item.twin is None:
                continue
            where = f"{task.data_file} line {index + 1}"
            partner = items.get(item.twin)
            if partner is None or item.skeleton is None or partner.cluster != item.cluster:
                raise SuiteError(f"{where}: is no twin of the open item that it names")
            if partner.extra.get("level") != item.extra.get("level"):
                raise SuiteError(f"{where}: has another level than its twin")
            if partner.checks != item.checks:
                raise SuiteError(f"{where}: is checked in another way than its twin")
            fam = get_family(item.skeleton.family)
            surfaces = [_surface(fam, item.skeleton, one, where) for one in (item, partner)]
            if any(mine == theirs for mine, theirs in zip(*surfaces, strict=True)):
                raise SuiteError(f"{where}: shares its frame or its phrasing with its twin")


def check_open_suite(hidden: Suite, opened: Suite) -> None:
    """Raise ``SuiteError`` unless this is the open suite that the hidden one was built with."""
    named = hidden.twins_of
    if named is None:
        raise SuiteError(f"suite {hidden.name!r} has no twins, so it needs no open suite")
    if named.sha256 != opened.sha256:
        raise SuiteError(
            f"suite {hidden.name!r} has twins of {named.name!r} version {named.version} ({named.sha256}), "
            f"not of {opened.name!r} version {opened.version} ({opened.sha256})"
        )


def _surface(fam: Family, skeleton: Skeleton, item: SuiteItem, where: str) -> tuple[str, str]:
    found = fam.surface(skeleton.fields, item.prompt)
    if found is None:
        raise SuiteError(f"{where}: the prompt is not what family {fam.name!r} makes of its skeleton")
    return found
