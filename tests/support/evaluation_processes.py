"""Evaluations in processes that are forked from a warm one, so that many can be killed in little time."""

import multiprocessing
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from eval_suites import RecordingReporter

from tiltyard_eval import runner
from tiltyard_eval.config import RunConfig

# The fork server imports the slow part once; what it forks starts in milliseconds.
PRELOADED = [
    *("lm_eval.evaluator", "lm_eval.tasks", "tiltyard_eval.runner", "tiltyard_eval.stats.scores"),
    "evaluation_processes",
]


def start(out: Path, config: RunConfig) -> ForkServerProcess:
    """Begin an evaluation in a process of its own."""
    return _spawn(_run, out, config)


def resume(out: Path) -> None:
    """Continue an evaluation in a process of its own, to its end."""
    process = _spawn(_resume, out)
    process.join(60)
    assert process.exitcode == 0


def _spawn(target: Any, *arguments: object) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def _run(out: Path, config: RunConfig) -> None:
    runner.start(config, out, RecordingReporter())


def _resume(out: Path) -> None:
    runner.resume(out, RecordingReporter(), {})
