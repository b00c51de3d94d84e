"""A suite's result on a run's page, of the parts that the evaluator's report is made of."""

from django import template
from django.utils.safestring import SafeString, mark_safe

from tiltyard.submissions.models import SuiteResult
from tiltyard_eval.pieces import latency, outcomes, tables
from tiltyard_eval.results import ResultError, TaskResult, timing_of

register = template.Library()


@register.simple_tag
def task_table(result: SuiteResult) -> SafeString:
    """Each task with what it counts, what went wrong, and its score with the interval."""
    return mark_safe(tables.task_table(_tasks(result), result.suite.visibility))  # noqa: S308  the part escapes


@register.simple_tag
def outcome_figure(result: SuiteResult) -> SafeString:
    """What became of the answers, as a bar and a table."""
    return mark_safe(outcomes.outcome_figure(outcomes.outcomes(_tasks(result))))  # noqa: S308  the part escapes


@register.simple_tag
def latency_figure(result: SuiteResult) -> SafeString:
    """How long the server took for requests; nothing of a hidden suite, whose questions it could spell in delays.

    The suite's result must have been read with this part of its document as `timing`.
    """
    if result.suite.is_hidden:
        return SafeString("")
    try:
        timing = timing_of(result.timing)  # type: ignore[attr-defined]  # annotated
    except ResultError:  # stored by a version whose results were others
        return SafeString("")
    return mark_safe(latency.latency_figure(timing, timing.latency_histogram, "requests"))  # noqa: S308  numbers


def _tasks(result: SuiteResult) -> list[TaskResult]:
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
            item_failures=_failures(task.item_failures, is_hidden=result.suite.is_hidden),
        )
        for task in result.tasks.all()
    ]


def _failures(by_kind: dict[str, int], *, is_hidden: bool) -> dict[str, int]:
    total = sum(by_kind.values())
    return {outcomes.ANY_FAULT: total} if is_hidden and total else by_kind
