"""Loads a suite's tasks into lm-eval. Importing this module imports lm-eval."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from lm_eval.tasks import TaskManager

from tiltyard_eval import checks
from tiltyard_eval.errors import RunFailed
from tiltyard_eval.suite import Suite
from tiltyard_eval.suite.task_yaml import has_checks


@dataclass(frozen=True)
class LoadedTasks:
    """lm-eval's tasks. `leaves` maps each task of the suite to the lm-eval tasks behind it: one, or a group's."""

    loaded: dict[str, Any]
    leaves: Mapping[str, Mapping[str, Any]]


def load_tasks(suite: Suite, cache: Path, *, fewshot_seed: int) -> LoadedTasks:
    """Build the tasks, read their data, and set what `simple_evaluate` sets.

    Raises:
        RunFailed: lm-eval cannot build a task, or will not run it.
    """
    # `datasets` reads the environment only when it is first imported.
    if not suite.network:
        datasets.config.HF_DATASETS_CACHE = str(cache / "datasets")
    specs = _foreign_specs(suite) if suite.foreign else _own_specs(suite, cache)
    manager = _manager(suite)
    merged: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    leaves: dict[str, Mapping[str, Any]] = {}
    for name, spec in specs.items():
        try:
            loaded = manager.load([spec])
        except Exception as error:  # whatever a task file makes lm-eval raise
            raise _unloadable(suite, name, error) from error
        if shared := sorted(loaded["tasks"].keys() & merged["tasks"].keys()):
            raise RunFailed("infra_error", f"The suite holds the lm-eval task {shared[0]!r} twice.")
        leaves[name] = loaded["tasks"]
        for part, entries in merged.items():
            entries.update(loaded.get(part, {}))
    for name, task in merged["tasks"].items():
        _check_runnable(name, task)
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=fewshot_seed)
    return LoadedTasks(merged, leaves)


def _own_specs(suite: Suite, cache: Path) -> dict[str, dict[str, Any]]:
    specs = suite.task_configs()
    for spec in specs.values():
        spec["dataset_kwargs"]["cache_dir"] = str(cache)
        if has_checks(spec):
            spec["process_results"] = checks.process_results  # ours: a suite names checks and brings no code
    return specs


def _foreign_specs(suite: Suite) -> dict[str, str]:
    return {task.name: task.name for task in suite.tasks}


def _manager(suite: Suite) -> TaskManager:
    """An index of the suite's own files alone, or of lm-eval's as well (seconds) when a task is not among them."""
    if not suite.foreign:
        return TaskManager(include_path=None, include_defaults=False)
    own = TaskManager(include_path=str(suite.root / "tasks"), include_defaults=False)
    if all(task.name in own.all_tasks for task in suite.tasks):
        return own
    return TaskManager(include_path=str(suite.root / "tasks"), include_defaults=True)


def _check_runnable(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise RunFailed("infra_error", f"The task {name} runs code that models write, which the evaluator does not do.")
    if getattr(task, "MULTIMODAL", False):
        raise RunFailed("infra_error", f"The task {name} asks about images, which no adapter can send.")


def _unloadable(suite: Suite, name: str, error: Exception) -> RunFailed:
    """Say why; in lm-eval's words only where they cannot quote a hidden question."""
    detail = f": {' '.join(str(error).split())[:300]}" if suite.visibility == "open" else ""
    advice = ""
    if suite.network and isinstance(error, OSError):  # what the hub's client raises is a ConnectionError or like one
        advice = (
            " Its data lie on a hub: check this machine's network, or name a mirror that it reaches in HF_ENDPOINT."
        )
    return RunFailed("infra_error", f"lm-eval cannot load the task {name} ({type(error).__name__}{detail}).{advice}")
