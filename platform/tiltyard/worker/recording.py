"""Write a finished evaluation into the database: all of it, or nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from tiltyard.competitions.models import Suite
from tiltyard.evaluation import SampleRow, Usage
from tiltyard.leaderboards.changes import board_changed
from tiltyard.leaderboards.climbing import climb
from tiltyard.leaderboards.feedback import scored_message
from tiltyard.leaderboards.keys import ranking_basis
from tiltyard.leaderboards.ranking import SuiteScores, rank_suites
from tiltyard.submissions.manifests import signed_manifest
from tiltyard.submissions.models import ResourceUse, Run, Sample, SuiteResult, TaskResult
from tiltyard.submissions.states import RunState
from tiltyard.worker.speed import count_tokens
from tiltyard_eval.results import Result
from tiltyard_eval.results import TaskResult as TaskScore
from tiltyard_eval.stats import Stratum
from tiltyard_sandbox.verdicts import InfraFault, SubmissionFault

_BATCH = 500


@dataclass(frozen=True)
class ScoredSuite:
    suite: Suite
    result: Result
    samples: Sequence[SampleRow]

    def items_of(self, task: str) -> list[SampleRow]:
        return [row for row in self.samples if row.task == task]

    def scores(self) -> SuiteScores:
        strata = [Stratum([row.score for row in self.items_of(task.name)], task.weight) for task in self.result.tasks]
        return SuiteScores(self.suite, strata)


class _Fenced(Exception):  # noqa: N818 - leaves the transaction, and nothing else
    pass


def check_suite(suite: Suite, result: Result) -> None:
    """Raise InfraFault unless the result is of this very suite, task by task."""
    found = result.suite.sha256.removeprefix("sha256:") if result.suite else None
    expected = [(task["name"], task["items"]) for task in suite.tasks]
    if found != suite.sha256 or [(task.name, task.items) for task in result.tasks] != expected:
        raise InfraFault(f"The result is not of the suite {suite.name} {suite.version}.")


def record_scores(
    run: Run, scored: Sequence[ScoredSuite], evaluator_image_digest: str, usage: Usage | None = None
) -> bool:
    """Store results and the ranking score, and end the run as scored; False when another worker has it now.

    `evaluator_image_digest` is that of the image that asked the questions; it enters the signed manifests.
    """
    ranking = rank_suites([one.scores() for one in scored])
    fields: dict[str, Any] = ranking.run_fields()
    basis = ranking_basis(run.submission.competition, [one.suite for one in scored])
    now = timezone.now()
    message = scored_message(run.submission.competition, ranking.score, now)
    try:
        with transaction.atomic():
            # First, because it takes the row's lock and tells whether the rest may be written at all.
            if not run.transition(RunState.SCORED, message, ranking_basis=basis, **fields):
                raise _Fenced
            _store(run, scored, evaluator_image_digest)
            _store_usage(run, usage, scored)
            climb(run, now)
            board_changed([run.submission.track_id])
    except _Fenced:
        return False
    return True


def record_failure(run: Run, fault: SubmissionFault, usage: Usage | None) -> bool:
    """End the run as failed by the submission; False when another worker has it now."""
    with transaction.atomic():
        if not run.transition(
            RunState.FAILED,
            fault.message.split("\n", 1)[0],
            failure_reason=fault.reason.value,
            failure_message=fault.message,
        ):
            return False
        _store_usage(run, usage, ())
    return True


def _store_usage(run: Run, usage: Usage | None, scored: Sequence[ScoredSuite]) -> None:
    if usage is None:  # it did not come to an evaluation
        return
    asking_s = sum(one.result.timing.wall_s for one in scored)
    tokens = count_tokens(row.answer for one in scored for row in one.samples) if scored else None
    fields = {
        **asdict(usage),
        "attempt": run.attempt,
        "tokens": tokens,
        "tokens_per_s": tokens / asking_s if tokens is not None and asking_s > 0 else None,
    }
    ResourceUse.objects.create(run=run, **fields)


def _store(run: Run, scored: Sequence[ScoredSuite], evaluator_image_digest: str) -> None:
    """All suites' rows, a statement for each table: a run ends once, so there are none yet."""
    results = SuiteResult.objects.bulk_create(_suite_result(run, one, evaluator_image_digest) for one in scored)
    tasks = [
        (one, _task_result(result, task, one.items_of(task.name)))
        for one, result in zip(scored, results, strict=True)
        for task in one.result.tasks
    ]
    TaskResult.objects.bulk_create(task for _, task in tasks)
    samples = [_sample(task, row) for one, task in tasks if not one.suite.is_hidden for row in one.items_of(task.name)]
    Sample.objects.bulk_create(samples, batch_size=_BATCH)


def _suite_result(run: Run, scored: ScoredSuite, evaluator_image_digest: str) -> SuiteResult:
    result = scored.result
    if result.score is None:
        raise InfraFault("A scored result has no score.")
    return SuiteResult(
        run=run,
        suite=scored.suite,
        score=result.score.value,
        low=result.score.low,
        high=result.score.high,
        repro_hash=result.repro_hash,
        wall_s=result.timing.wall_s,
        result=result.to_json(),
        signed=signed_manifest(run, result, evaluator_image_digest),
    )


def _task_result(suite_result: SuiteResult, task: TaskScore, rows: Sequence[SampleRow]) -> TaskResult:
    return TaskResult(
        suite_result=suite_result,
        name=task.name,
        title=task.title[:120],
        family=task.family[:80],
        weight=task.weight,
        items=task.items,
        score=task.score,
        low=task.low,
        high=task.high,
        format_failures=task.format_failures,
        item_failures=dict(task.item_failures),
        item_scores=[row.score for row in rows],
    )


def _sample(task_result: TaskResult, row: SampleRow) -> Sample:
    return Sample(
        task_result=task_result,
        index=row.index,
        prompt=row.prompt,
        answer=row.answer,
        expected=row.expected,
        score=row.score,
        failure=row.failure or "",
    )
