"""Write a finished evaluation into the database: all of it, or nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from tiltyard.competitions.models import Suite
from tiltyard.evaluation import SampleRow
from tiltyard.leaderboards.ranking import SuiteScores, rank_suites, ranking_basis
from tiltyard.submissions.models import Run, Sample, SuiteResult, TaskResult
from tiltyard.submissions.states import RunState
from tiltyard_eval.results import Result
from tiltyard_eval.statistics import Stratum
from tiltyard_sandbox.verdicts import InfraFault

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


def record_scores(run: Run, scored: Sequence[ScoredSuite]) -> bool:
    """Store results and the ranking score, and end the run as scored; False when another worker has it now."""
    ranking = rank_suites([one.scores() for one in scored])
    fields: dict[str, Any] = ranking.run_fields()
    basis = ranking_basis(run.submission.competition, [one.suite for one in scored])
    message = f"Scored {ranking.score.value:.1%} (95 % interval {ranking.score.low:.1%} to {ranking.score.high:.1%})."
    try:
        with transaction.atomic():
            # First, because it takes the row's lock and tells whether the rest may be written at all.
            if not run.transition(RunState.SCORED, message, ranking_basis=basis, **fields):
                raise _Fenced
            run.suite_results.all().delete()
            for one in scored:
                _store(run, one)
    except _Fenced:
        return False
    return True


def _store(run: Run, scored: ScoredSuite) -> None:
    result = scored.result
    if result.score is None:
        raise InfraFault("A scored result has no score.")
    suite_result = SuiteResult.objects.create(
        run=run,
        suite=scored.suite,
        score=result.score.value,
        low=result.score.low,
        high=result.score.high,
        repro_hash=result.repro_hash,
        wall_s=result.timing.wall_s,
        result=result.to_json(),
    )
    for task in result.tasks:
        rows = scored.items_of(task.name)
        task_result = TaskResult.objects.create(
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
        if not scored.suite.is_hidden:
            Sample.objects.bulk_create((_sample(task_result, row) for row in rows), batch_size=_BATCH)


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
