"""A suite's result on a run's page, of the parts that the evaluator's report is made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.utils.safestring import SafeString, mark_safe

from tiltyard.submissions.models import SuiteResult
from tiltyard.submissions.models import TaskResult as StoredTask
from tiltyard_eval.pieces import latency, outcomes, tables
from tiltyard_eval.results import ResultError, TaskResult, timing_of


@dataclass(frozen=True)
class ShownSuite:
    """What the page says of one suite. `timing` is this part of the result's document, which is not read whole."""

    result: SuiteResult
    stored_tasks: Sequence[StoredTask]
    timing: Any

    @property
    def task_table(self) -> SafeString:
        """Each task with what it counts, what went wrong, and its score with the interval."""
        return mark_safe(tables.task_table(self._tasks, self.result.suite.visibility))  # noqa: S308  the part escapes

    @property
    def outcome_figure(self) -> SafeString:
        """What became of the answers, as a bar and a table."""
        return mark_safe(outcomes.outcome_figure(outcomes.outcomes(self._tasks)))  # noqa: S308  the part escapes

    @property
    def latency_figure(self) -> SafeString:
        """How long the server took; nothing of a hidden suite, whose questions it could spell in delays."""
        if self.result.suite.is_hidden:
            return SafeString("")
        try:
            timing = timing_of(self.timing)
        except ResultError:  # stored by a version whose results were others
            return SafeString("")
        return mark_safe(latency.latency_figure(timing, timing.latency_histogram, "requests"))  # noqa: S308  numbers

    @cached_property
    def _tasks(self) -> list[TaskResult]:
        """The stored tasks as the evaluator's; of a hidden suite faults are counted without their kinds."""
        return [
            TaskResult(
                name=task.name,
                title=task.title,
                family=task.family,
                weight=task.weight,
                items=task.items,
                score=task.score,
                low=task.low,
                high=task.high,
                format_failures=task.format_failures,
                item_failures=_failures(task.item_failures, is_hidden=self.result.suite.is_hidden),
            )
            for task in self.stored_tasks
        ]


def shown_suites(results: Iterable[SuiteResult], tasks: Iterable[StoredTask]) -> list[ShownSuite]:
    """The results, which have been read with `timing`, each with those of the tasks that are its own."""
    by_result: dict[int, list[StoredTask]] = {}
    for task in tasks:
        by_result.setdefault(task.suite_result_id, []).append(task)
    return [
        ShownSuite(result, by_result.get(result.pk, []), result.timing)  # type: ignore[attr-defined]  # annotated
        for result in results
    ]


def _failures(by_kind: Mapping[str, int], *, is_hidden: bool) -> dict[str, int]:
    total = sum(by_kind.values())
    return {outcomes.ANY_FAULT: total} if is_hidden and total else dict(by_kind)
