"""From a folder to a checked suite, and the lock that says its content has not changed."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltyard_eval.checks import METRIC as CHECKS_METRIC
from tiltyard_eval.files import write_json
from tiltyard_eval.identity import sha256_of
from tiltyard_eval.suite.declaration import DECLARATION_KEYS, ChatOptions, Declaration, read_declaration
from tiltyard_eval.suite.foreign import foreign_digests
from tiltyard_eval.suite.likelihood_yaml import LIKELIHOOD_TYPES
from tiltyard_eval.suite.reading import (
    LOCK_FILE,
    MAX_DATA_BYTES,
    MAX_TASKS,
    SUITE_FILE,
    SuiteError,
    SuiteItem,
    check_folder,
    check_name,
    check_text,
    list_files,
    read_bytes,
    read_items,
    read_yaml_file,
)
from tiltyard_eval.suite.task_yaml import check_task, has_checks, resolved

LOCK_SCHEMA = "tiltyard.suite-lock/1"
_SUITE_KEYS = {"name", "title", "version", "visibility", "description", "commitment", "recipe_sha256", "tasks"}
_SUITE_KEYS |= {"twins_of", *DECLARATION_KEYS}
_TASK_KEYS = {"name", "title", "family", "weight", "metric", "filter"}
_NAME_PLACE = f"{SUITE_FILE}: name of a task"
_FOREIGN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,127}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class SuiteTask:
    """One task: ``family`` is the skill's group for reports, ``config`` the lm-eval task file as it is locked.

    ``metric`` and ``filter`` say what counts as an item's score; where None, the task's first ones do. In a suite of
    format lm-eval the name may be a group's; ``config``, ``data_file`` and ``items`` are then empty.
    """

    name: str
    title: str
    family: str
    weight: float
    config: dict[str, Any]
    data_file: str
    items: tuple[SuiteItem, ...]
    metric: str | None = None
    filter: str | None = None

    def clusters(self) -> list[str] | None:
        """For each item a label that items of one skeleton share; None when no two items do."""
        labels = [item.cluster or f"item {index}" for index, item in enumerate(self.items)]
        return labels if len(set(labels)) < len(labels) else None


@dataclass(frozen=True)
class TwinsOf:
    """The open suite, as it was, of which a hidden suite holds paraphrase twins."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Suite:
    """A checked suite. ``sha256`` (``sha256:…``) is over the canonical content of all its files."""

    root: Path
    name: str
    title: str
    version: str
    visibility: str
    description: str
    commitment: str | None
    tasks: tuple[SuiteTask, ...]
    sha256: str
    foreign: bool = False
    network: bool = False
    trusts_server: bool = False
    chat: ChatOptions | None = None
    twins_of: TwinsOf | None = None

    @property
    def item_count(self) -> int:
        """Number of questions in all tasks; of a suite of format lm-eval it is not known before lm-eval reads it."""
        return sum(len(task.items) for task in self.tasks)

    def prompts(self) -> frozenset[str]:
        """Every prompt of the suite, for keeping them out of training data and of other suites."""
        return frozenset(item.identity for task in self.tasks for item in task.items)

    def task_configs(self) -> dict[str, dict[str, Any]]:
        """For each task the lm-eval configuration with an absolute data path; free to be changed by the caller."""
        return {task.name: resolved(task.config, self.root, task.data_file) for task in self.tasks}


def load_suite(path: Path, *, trusted: bool = False, require_lock: bool = True) -> Suite:
    """Read and check a suite.

    Args:
        path: The suite's folder.
        trusted: Allow any Jinja template and regular expression in task files, and suites of format lm-eval, whose
            files may run any code; only for one's own suites.
        require_lock: Refuse a suite whose content is not that of its lock; off only to make the lock.

    Raises:
        SuiteError: With the file and the reason; the message holds no question and no answer.
    """
    check_folder(path)
    meta = read_yaml_file(path, SUITE_FILE)
    if unknown := sorted(key for key in meta if key not in _SUITE_KEYS):
        raise SuiteError(f"{SUITE_FILE}: unknown keys {unknown}; known are {sorted(_SUITE_KEYS)}")
    declared = read_declaration(meta, trusted=trusted)
    entries = meta.get("tasks")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_TASKS:
        raise SuiteError(f"{SUITE_FILE}: tasks must be a list of 1 to {MAX_TASKS}")
    files = [] if declared.foreign else list_files(path)
    tasks = tuple(_load_task(path, entry, declared, trusted=trusted) for entry in entries)
    _check_complete(files, tasks, foreign=declared.foreign)
    twins_of = _twins_of(meta.get("twins_of"))
    if twins_of is None and (linked := [task for task in tasks if any(item.twin for item in task.items)]):
        raise SuiteError(f"{linked[0].data_file}: has twins, but {SUITE_FILE} does not say of which suite (twins_of)")
    if meta.get("visibility") not in ("open", "hidden"):
        raise SuiteError(f"{SUITE_FILE}: visibility must be open or hidden")
    digests = _digests(path, meta, tasks, foreign=declared.foreign)
    if require_lock:
        _check_lock(path, digests)
    return Suite(
        root=path,
        name=check_name(meta.get("name"), f"{SUITE_FILE}: name"),
        title=check_text(meta.get("title"), f"{SUITE_FILE}: title", 200),
        version=check_text(meta.get("version"), f"{SUITE_FILE}: version (in quotes)", 40),
        visibility=str(meta["visibility"]),
        description=check_text(meta.get("description", "-"), f"{SUITE_FILE}: description", 4000),
        commitment=_optional_digest(meta, "commitment"),
        tasks=tasks,
        sha256=_total(digests),
        foreign=declared.foreign,
        network=declared.network,
        trusts_server=declared.trusts_server,
        chat=declared.chat,
        twins_of=twins_of,
    )


def lock_suite(path: Path, *, trusted: bool = False) -> Suite:
    """Check the suite as it stands, write ``suite.lock`` for it and return it; raises ``SuiteError``."""
    suite = load_suite(path, trusted=trusted, require_lock=False)
    digests = _digests(path, read_yaml_file(path, SUITE_FILE), suite.tasks, foreign=suite.foreign)
    write_json(path / LOCK_FILE, {"schema": LOCK_SCHEMA, "sha256": _total(digests), "files": digests})
    return suite


def verify_suite(path: Path, *, trusted: bool = False) -> Suite:
    """Load a locked suite; raises ``SuiteError`` naming each file that differs from the lock."""
    return load_suite(path, trusted=trusted, require_lock=True)


def check_secret(suite: Suite, secret: bytes) -> None:
    """Raise ``SuiteError`` unless the secret is the one the suite was committed to."""
    if suite.commitment != commitment_of(secret):
        raise SuiteError(f"suite {suite.name!r}: the secret is not the one committed to in {SUITE_FILE}")


def commitment_of(secret: bytes) -> str:
    """The hash that is published before a round and that the secret, revealed after it, must have."""
    return "sha256:" + hashlib.sha256(secret).hexdigest()


def _load_task(path: Path, entry: object, declared: Declaration, *, trusted: bool) -> SuiteTask:
    if not isinstance(entry, dict) or set(entry) - _TASK_KEYS:
        raise SuiteError(f"{SUITE_FILE}: each task is a mapping with {sorted(_TASK_KEYS)}")
    name = _foreign_name(entry.get("name")) if declared.foreign else check_name(entry.get("name"), _NAME_PLACE)
    config, data_file, items = ({}, "", ()) if declared.foreign else _read_task(path, name, declared, trusted=trusted)
    return SuiteTask(
        name=name,
        title=check_text(entry.get("title"), f"{SUITE_FILE}: title of task {name!r}", 200),
        family=check_text(entry.get("family"), f"{SUITE_FILE}: family of task {name!r}", 64),
        weight=_weight(entry.get("weight", 1), name),
        config=config,
        data_file=data_file,
        items=items,
        metric=_optional_name(entry, "metric"),
        filter=_optional_name(entry, "filter"),
    )


def _read_task(
    path: Path, name: str, declared: Declaration, *, trusted: bool
) -> tuple[dict[str, Any], str, tuple[SuiteItem, ...]]:
    where = f"tasks/{name}.yaml"
    config = read_yaml_file(path, where)
    data_file = check_task(config, name, where, trusted=trusted)
    if config["output_type"] in LIKELIHOOD_TYPES and not declared.trusts_server:
        raise SuiteError(
            f"{where}: a log-likelihood request contains the gold answer, and what the server reports cannot be "
            f"verified; ask for texts (generate_until), or declare `trusts_server: true` in {SUITE_FILE}"
        )
    items = read_items(path, data_file, config["output_type"])
    if any(bool(item.checks) != has_checks(config) for item in items):
        raise SuiteError(f"{data_file}: with the metric {CHECKS_METRIC} every line has checks, and without it none")
    return config, data_file, items


def _weight(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e6:
        raise SuiteError(f"{SUITE_FILE}: weight of task {name!r} must be a number above 0, at most 1000000")
    return float(value)


def _foreign_name(value: object) -> str:
    """A name of lm-eval's; it becomes no path here."""
    if not isinstance(value, str) or not _FOREIGN_NAME.fullmatch(value):
        raise SuiteError(f"{_NAME_PLACE}: must be the name of an lm-eval task, group or tag, at most 128 characters")
    return value


def _optional_name(entry: dict[str, Any], key: str) -> str | None:
    value = entry.get(key)
    return None if value is None else check_text(value, f"{SUITE_FILE}: {key} of a task", 128)


def _check_complete(files: list[str], tasks: tuple[SuiteTask, ...], *, foreign: bool) -> None:
    if foreign:
        if len({task.name for task in tasks}) != len(tasks):
            raise SuiteError(f"{SUITE_FILE}: a task is used twice")
        return
    named = [SUITE_FILE, *(f"tasks/{task.name}.yaml" for task in tasks), *(task.data_file for task in tasks)]
    if len(set(named)) != len(named):
        raise SuiteError(f"{SUITE_FILE}: a task or a data file is used twice")
    if stray := sorted(set(files) - set(named)):
        raise SuiteError(f"{SUITE_FILE}: does not name {stray}; list the tasks or remove the files")
    seen: set[str] = set()
    for task in tasks:
        prompts = {item.identity for item in task.items}
        if seen & prompts:
            raise SuiteError(f"{task.data_file}: a prompt stands in another task as well")
        seen |= prompts


def _optional_digest(meta: dict[str, Any], key: str) -> str | None:
    value = meta.get(key)
    if value is not None and not (isinstance(value, str) and _SHA256.fullmatch(value)):
        raise SuiteError(f"{SUITE_FILE}: {key} must be sha256: and 64 hexadecimal digits")
    return value


def _twins_of(value: object) -> TwinsOf | None:
    if value is None:
        return None
    where = f"{SUITE_FILE}: twins_of"
    if not isinstance(value, dict) or value.keys() != {"name", "version", "sha256"}:
        raise SuiteError(f"{where}: must be a mapping with name, version and sha256 of the open suite")
    return TwinsOf(
        name=check_name(value["name"], f"{where}: name"),
        version=check_text(value["version"], f"{where}: version (in quotes)", 40),
        sha256=str(_optional_digest(value, "sha256")),
    )


def _digests(path: Path, meta: dict[str, Any], tasks: tuple[SuiteTask, ...], *, foreign: bool) -> dict[str, str]:
    """SHA-256 of each file's parsed content, so that line ends, comments and the order of keys do not matter.

    The files of a suite of format lm-eval are not parsed here; theirs is over the bytes.
    """
    digests = {SUITE_FILE: sha256_of(meta)}
    if foreign:
        return dict(sorted({**digests, **foreign_digests(path)}.items()))
    for task in tasks:
        digests[f"tasks/{task.name}.yaml"] = sha256_of(task.config)
        digests[task.data_file] = sha256_of([item.to_dict() for item in task.items])
    return dict(sorted(digests.items()))


def _total(digests: dict[str, str]) -> str:
    return "sha256:" + sha256_of(digests)


def _check_lock(path: Path, digests: dict[str, str]) -> None:
    try:
        lock = json.loads(read_bytes(path, LOCK_FILE, MAX_DATA_BYTES))
    except (ValueError, RecursionError) as error:
        advice = "; make it with: python -m tiltyard_eval suite lock DIR"
        raise SuiteError(f"{error if isinstance(error, SuiteError) else LOCK_FILE + ': not JSON'}{advice}") from None
    if not isinstance(lock, dict) or lock.get("schema") != LOCK_SCHEMA or not isinstance(lock.get("files"), dict):
        raise SuiteError(f"{LOCK_FILE}: not a lock of schema {LOCK_SCHEMA}")
    locked = lock["files"]
    changed = sorted(name for name in {*digests, *locked} if digests.get(name) != locked.get(name))
    if changed or lock.get("sha256") != _total(digests):
        raise SuiteError(f"the suite differs from its lock in {changed or [LOCK_FILE]}; restore it or lock it anew")
