"""Rows as the API shows them."""

from django.conf import settings
from django.urls import reverse

import tiltyard_eval
from tiltyard.api import schemas
from tiltyard.competitions.models import Competition, Phase, Suite
from tiltyard.leaderboards.board import Entry, interval
from tiltyard.leaderboards.intervals import Interval
from tiltyard.submissions.models import Run, Submission, SuiteResult, TaskResult


def absolute(path: str) -> str:
    return f"{settings.SITE_URL}{path}"


def interval_out(found: Interval | None) -> schemas.IntervalOut | None:
    return None if found is None else schemas.IntervalOut(value=found.value, low=found.low, high=found.high)


def competition_out(competition: Competition, phase: Phase | None) -> schemas.CompetitionOut:
    return schemas.CompetitionOut(
        slug=competition.slug,
        title=competition.title,
        summary=competition.summary,
        url=absolute(competition.get_absolute_url()),
        current_phase=schemas.PhaseOut.from_orm(phase) if phase else None,
    )


def competition_detail_out(competition: Competition, phase: Phase | None) -> schemas.CompetitionDetailOut:
    return schemas.CompetitionDetailOut(
        **competition_out(competition, phase).dict(),
        base_models=competition.allowed_base_models,
        training_data=competition.allowed_training_data,
        base_images=competition.base_images,
        upload_bytes_max=competition.upload_limit_bytes,
        phases=[schemas.PhaseOut.from_orm(one) for one in competition.phases.all()],
        tracks=[schemas.TrackOut.from_orm(track) for track in competition.tracks.all()],
        suites=[suite_out(competition, suite) for suite in competition.suites.filter(is_active=True)],
        evaluator=schemas.EvaluatorOut(
            image=settings.EVALUATOR_IMAGE,
            version=tiltyard_eval.__version__,
            seed=competition.evaluation_seed,
        ),
    )


def suite_out(competition: Competition, suite: Suite) -> schemas.SuiteOut:
    archive = None if suite.is_hidden else reverse("api-1:suite_archive", args=[competition.slug, suite.name])
    return schemas.SuiteOut(
        name=suite.name,
        title=suite.title,
        version=suite.version,
        visibility=suite.visibility,
        sha256=suite.sha256,
        weight=suite.weight,
        items=suite.item_count,
        tasks=suite.tasks,
        archive_url=absolute(archive) if archive else None,
    )


def entry_out(entry: Entry) -> schemas.EntryOut:
    return schemas.EntryOut(
        rank=entry.rank,
        is_tied=entry.is_tied,
        name=entry.name,
        owner=entry.owner_name,
        is_baseline=entry.is_baseline,
        score=schemas.IntervalOut(value=entry.score.value, low=entry.score.low, high=entry.score.high),
        open=interval_out(entry.open),
        hidden=interval_out(entry.hidden),
        gap=interval_out(entry.gap),
        submitted_at=entry.submitted_at,
        run_id=entry.run.pk,
    )


def run_out(run: Run) -> schemas.RunOut:
    submission = run.submission
    return schemas.RunOut(
        id=run.pk,
        submission_id=submission.pk,
        name=submission.name,
        competition=submission.competition.slug,
        track=submission.track.slug,
        url=absolute(run.get_absolute_url()),
        state=run.state,
        is_final=run.is_final,
        failure_reason=run.failure_reason or None,
        failure_message=run.failure_message or None,
        attempt=run.attempt,
        cancel_requested=run.cancel_requested_at is not None,
        queued_at=run.queued_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        current_suite=run.current_suite or None,
        items_done=run.items_done,
        items_total=run.items_total,
        image_digest=run.image_digest or None,
        score=interval_out(interval(run.score, run.score_low, run.score_high)),
        open=interval_out(interval(run.open_score, run.open_low, run.open_high)),
        hidden=interval_out(interval(run.hidden_score, run.hidden_low, run.hidden_high)),
        gap=interval_out(interval(run.gap, run.gap_low, run.gap_high)),
    )


def run_detail_out(run: Run) -> schemas.RunDetailOut:
    results = run.suite_results.select_related("suite").prefetch_related("tasks")
    return schemas.RunDetailOut(**run_out(run).dict(), suites=[suite_result_out(result) for result in results])


def suite_result_out(result: SuiteResult) -> schemas.SuiteResultOut:
    return schemas.SuiteResultOut(
        suite=result.suite.name,
        title=result.suite.title,
        visibility=result.suite.visibility,
        score=schemas.IntervalOut(value=result.score, low=result.low, high=result.high),
        repro_hash=result.repro_hash,
        tasks=[
            {
                "name": task.name,
                "title": task.title,
                "family": task.family,
                "weight": task.weight,
                "items": task.items,
                "score": {"value": task.score, "low": task.low, "high": task.high},
                "format_failures": task.format_failures,
                "item_failures": _item_failures(result, task),
            }
            for task in result.tasks.all()
        ],
    )


def _item_failures(result: SuiteResult, task: TaskResult) -> dict[str, int]:
    """By kind; of a hidden suite only how many: the server chooses the kind, so the counts could spell a question."""
    if result.suite.is_hidden and task.item_failures:
        return {"any": sum(task.item_failures.values())}
    return dict(task.item_failures)


def submission_out(submission: Submission) -> schemas.SubmissionOut:
    return schemas.SubmissionOut(
        id=submission.pk,
        name=submission.name,
        competition=submission.competition.slug,
        track=submission.track.slug,
        created_at=submission.created_at,
        filename=submission.original_filename,
        runs=[run_out(run) for run in submission.runs.all()],
    )
