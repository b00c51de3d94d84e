"""A Celery worker whose evaluations are played: everything about the queue is real, no container runs.

    python stub.py worker -Q cpu -c 1        the arguments are Celery's

An evaluation of a suite is a child process that sleeps STUB_SUITE_S seconds, so that it can be killed as an evaluator's
container can. Its scores follow from the artefact's hash, and its result names the attempt that made it.

With STUB_CONTAINERS=1 nothing but that name is played: images are built and pairs of containers run on the real engine.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import django

SUITE_S = float(os.environ.get("STUB_SUITE_S", "0.5"))
CLAIMS_DIR = os.environ.get("STUB_CLAIMS_DIR", "")
CONTAINERS = os.environ.get("STUB_CONTAINERS", "") == "1"
_POLL_S = 0.05


def install() -> None:
    """Put the played engine in the place of the real one; before any task runs."""
    django.setup()
    from tiltyard.worker import execution, tasks, withholding  # noqa: PLC0415 - needs Django

    if CONTAINERS:
        execution.evaluate_suite = naming_the_attempt(execution.evaluate_suite)
        return
    execution.fit_machine = tasks.fit_machine = fit_machine
    execution.evaluator_digest = lambda *_: "sha256:" + "e" * 64
    execution.prepare_image = prepare_image
    execution.release_image = lambda *_: None
    execution.evaluate_suite = evaluate_suite
    execution.sweep_strays = lambda _client: 0
    execution.try_to_sweep = tasks.try_to_sweep = lambda: None
    execution.Meter = Meter
    withholding.END_S = 0  # what takes no time tells nothing by it
    execution.EngineWatch = lambda _client: nullcontext()
    if CLAIMS_DIR:
        _time_claims(Path(CLAIMS_DIR))


def _time_claims(directory: Path) -> None:
    """Have every claim write its milliseconds into a file of its process."""
    from tiltyard.submissions.models import Run  # noqa: PLC0415 - needs Django

    claim_next = Run.claim_next

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        run = claim_next(*arguments)
        if run is not None:
            with (directory / str(os.getpid())).open("a") as file:
                file.write(f"{1000 * (time.perf_counter() - began):.3f}\n")
        return run

    Run.claim_next = timed  # type: ignore[method-assign]


def naming_the_attempt(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """The real evaluation, whose result also names the attempt that made it."""

    def evaluate_and_name(*arguments: Any, labels: Mapping[str, str], **options: Any) -> Any:
        outcome = evaluate(*arguments, labels=labels, **options)
        if outcome.result is None:
            return outcome
        named = replace(outcome.result, execution_mode=f"attempt-{labels['tiltyard.attempt']}")
        return replace(outcome, result=named)

    return evaluate_and_name


@contextmanager
def fit_machine() -> Iterator[Any]:
    yield SimpleNamespace(client=None, evaluator_image="stub")


def prepare_image(_client: None, archive: Path, **_: object) -> Any:
    return SimpleNamespace(
        image_id="stub", digest=f"sha256:{archive.name}", manifest=SimpleNamespace(adapter="openai"), is_ours=False
    )


class Meter:
    """Measures nothing: there is nothing to measure."""

    def __init__(self, *_: object) -> None:
        from tiltyard.evaluation import Usage  # noqa: PLC0415

        self.usage = Usage(wall_s=SUITE_S)

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def evaluate_suite(
    _client: None,
    *,
    image: Any,
    suite_dir: Path,
    cancel: threading.Event,
    labels: Mapping[str, str],
    on_progress: Callable[[str, int, int], None],
    **_: object,
) -> Any:
    """Sleep, then give the artefact's scores; an InfraFault when the child was killed."""
    from tiltyard.evaluation import SampleRow, SuiteOutcome  # noqa: PLC0415
    from tiltyard_sandbox.verdicts import Cancelled, InfraFault  # noqa: PLC0415

    if SUITE_S:
        with subprocess.Popen(["/bin/sleep", str(SUITE_S)]) as child:
            while child.poll() is None:
                if cancel.wait(_POLL_S):
                    child.kill()
                    raise Cancelled
        if child.returncode != 0:
            raise InfraFault("The evaluator was killed.")
    suite = _suite(suite_dir.name)
    chance = random.Random(f"{image.digest} {suite_dir.name}")  # noqa: S311  not for secrets
    rows = [
        SampleRow(task["name"], index, "", str(index), str(index), float(chance.random() < 0.6), None)
        for task in suite.tasks
        for index in range(task["items"])
    ]
    on_progress("scoring", len(rows), len(rows))
    return SuiteOutcome("scored", None, "", _result(suite, rows, labels["tiltyard.attempt"]), tuple(rows))


def _result(suite: Any, rows: list[Any], attempt: str) -> Any:
    from tiltyard_eval.results import Result, Score, SuiteRef, TaskResult, Timing  # noqa: PLC0415

    tasks = []
    for task in suite.tasks:
        value = sum(row.score for row in rows if row.task == task["name"]) / task["items"]
        about = (task["name"], task["title"], task["family"], task["weight"], task["items"])
        tasks.append(TaskResult(*about, value, value, value, 0, {}))
    mean = sum(task.score for task in tasks) / len(tasks)
    return Result(
        status="scored",
        failure=None,
        suite=SuiteRef(suite.name, suite.title, suite.version, suite.visibility, f"sha256:{suite.sha256}"),
        score=Score(mean, mean, mean),
        tasks=tuple(tasks),
        adapter="openai",
        execution_mode=f"attempt-{attempt}",
        settings={},
        versions={},
        timing=Timing("2026-01-01T00:00:00+00:00", SUITE_S or 0.001, len(rows), 0, None, None),
        identity={},
        repro_hash=f"sha256:{suite.sha256}",
    )


_suites: dict[str, Any] = {}


def _suite(sha256: str) -> Any:
    from tiltyard.competitions.models import Suite  # noqa: PLC0415

    if sha256 not in _suites:
        _suites[sha256] = Suite.objects.get(sha256=sha256)
    return _suites[sha256]


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tiltyard.settings")
    install()
    from tiltyard.celery import app

    app.worker_main(sys.argv[1:])
