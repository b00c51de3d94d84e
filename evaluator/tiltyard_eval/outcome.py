"""Builds the result document, for a scored run and for a failed one."""

import importlib.metadata
import platform
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

import tiltyard_eval
from tiltyard_eval.config import RunConfig, RunFacts
from tiltyard_eval.errors import RunFailed
from tiltyard_eval.harness import Evaluation
from tiltyard_eval.identity import repro_hash
from tiltyard_eval.items import FORMAT_FAILURE, ItemScore
from tiltyard_eval.latency import latency_fields
from tiltyard_eval.results import Failure, Result, Score, SuiteRef, TaskResult, Timing
from tiltyard_eval.stats import Stratum
from tiltyard_eval.suite import Suite, SuiteTask

_TIMING_DIGITS = 4


def scored_result(config: RunConfig, suite: Suite, evaluation: Evaluation, facts: RunFacts) -> Result:
    """The result of a run that asked and scored everything."""
    from tiltyard_eval.stats.scores import score_strata  # noqa: PLC0415 - SciPy, for which no question has to wait

    by_task = {task.name: [item for item in evaluation.items if item.task == task.name] for task in suite.tasks}
    strata = [
        Stratum([item.score for item in by_task[task.name]], task.weight, task.clusters()) for task in suite.tasks
    ]
    total, task_scores = score_strata(strata)
    tasks = tuple(
        _task_result(task, by_task[task.name], score, evaluation.metrics[task.name])
        for task, score in zip(suite.tasks, task_scores, strict=True)
    )
    return _result(config, suite, facts, generation=evaluation.generation, tasks=tasks, score=total, failure=None)


def failed_result(config: RunConfig, suite: Suite | None, failure: RunFailed, facts: RunFacts) -> Result:
    """The result of a run that ended without a score; the suite is None when it could not be read."""
    return _result(
        config,
        suite,
        facts,
        generation={},
        tasks=(),
        score=None,
        failure=Failure(failure.reason, failure.message),
    )


def _task_result(task: SuiteTask, items: list[ItemScore], score: Score, metrics: Mapping[str, float]) -> TaskResult:
    failures = Counter(item.failure for item in items if item.failure is not None)
    format_failures = failures.pop(FORMAT_FAILURE, 0)
    return TaskResult(
        name=task.name,
        title=task.title,
        family=task.family,
        weight=task.weight,
        items=len(items),
        score=score.value,
        low=score.low,
        high=score.high,
        format_failures=format_failures,
        item_failures=dict(sorted(failures.items())),
        ties=sum(item.tied for item in items),
        metrics=dict(metrics),
    )


def _result(
    config: RunConfig,
    suite: Suite | None,
    facts: RunFacts,
    *,
    generation: Mapping[str, Any],
    tasks: tuple[TaskResult, ...],
    score: Score | None,
    failure: Failure | None,
) -> Result:
    identity = _identity(config, suite, facts, generation)
    return Result(
        status="scored" if failure is None else "failed",
        failure=failure,
        suite=None if suite is None else _suite_ref(suite),
        score=score,
        tasks=tasks,
        adapter=config.adapter,
        execution_mode=facts.execution_mode,
        settings=config.settings(),
        versions={
            "evaluator": tiltyard_eval.__version__,
            "lm_eval": importlib.metadata.version("lm_eval"),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        timing=_timing(facts),
        identity=identity,
        repro_hash=repro_hash(identity),
    )


def _identity(config: RunConfig, suite: Suite | None, facts: RunFacts, generation: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "suite_sha256": None if suite is None else suite.sha256,
        "image_digest": config.image_digest,
        "evaluator_version": tiltyard_eval.__version__,
        "lm_eval_version": importlib.metadata.version("lm_eval"),
        "seed": config.seed,
        "generation": dict(generation),
        "adapter": config.adapter,
        "execution_mode": facts.execution_mode,
        # Only where it was asked for, so that other hashes stay what they were.
        **({} if config.context_tokens is None else {"context_tokens": config.context_tokens}),
    }


def _suite_ref(suite: Suite) -> SuiteRef:
    return SuiteRef(
        name=suite.name,
        title=suite.title,
        version=suite.version,
        visibility=suite.visibility,
        sha256=suite.sha256,
    )


def _timing(facts: RunFacts) -> Timing:
    return Timing(
        started_at=facts.started_at,
        wall_s=round(time.monotonic() - facts.started_s, _TIMING_DIGITS),
        requests=facts.requests,
        retries=facts.retries,
        **latency_fields(facts.latencies_s),
    )
