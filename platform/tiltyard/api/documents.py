"""Rows as the API shows them."""

import uuid
from collections.abc import Mapping, Sequence

from django.conf import settings
from django.urls import reverse
from django.utils import timezone

import tiltyard_eval
from tiltyard.api import schemas
from tiltyard.competitions.models import Competition, Phase, Suite
from tiltyard.leaderboards.board import Board, Entry, Shown, interval
from tiltyard.leaderboards.feedback import show_run, show_runs, shown_results
from tiltyard.submissions.models import ResourceUse, Run, Submission, SuiteResult, TaskResult


def absolute(path: str) -> str:
    return f"{settings.SITE_URL}{path}"


def interval_out(found: Shown | None) -> schemas.IntervalOut | None:
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
        scoring=competition.scoring,
        feedback=competition.feedback,
        base_images=competition.base_images,
        registries=competition.registries,
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
        commitment=suite.commitment,
        weight=suite.weight,
        items=suite.item_count,
        tasks=suite.tasks,
        archive_url=absolute(archive) if archive else None,
    )


def leaderboard_out(board: Board, limit: int, offset: int) -> schemas.LeaderboardOut:
    """The board with `limit` of its entries, from `offset` on."""
    found = board.statistics
    return schemas.LeaderboardOut(
        competition=board.competition.slug,
        track=board.track.slug,
        made_at=board.made_at,
        rule=board.rule,
        feedback=board.feedback,
        correlation=found.correlation if found else None,
        detectable=found.detectable if found else {},
        references=found.references if found else [],
        margin=found.margin if found else None,
        problem=found.problem if found else "",
        columns=[schemas.ColumnOut(name=one.name, title=one.title, unit=one.unit) for one in board.columns],
        ranked_by=board.ranked_by.name if board.ranked_by else None,
        entries_total=len(board.entries),
        entries=[entry_out(entry) for entry in board.entries[offset : offset + limit]],
    )


def entry_out(entry: Entry) -> schemas.EntryOut:
    return schemas.EntryOut(
        rank=entry.rank,
        is_tied=entry.is_tied,
        name=entry.name,
        owner=entry.owner_name,
        is_baseline=entry.is_baseline,
        is_reference=entry.is_reference,
        statistics=entry.statistics,
        score=schemas.IntervalOut(value=entry.score.value, low=entry.score.low, high=entry.score.high),
        weighted_mean=schemas.IntervalOut(value=entry.mean.value, low=entry.mean.low, high=entry.mean.high),
        open=interval_out(entry.open),
        hidden=interval_out(entry.hidden),
        gap=interval_out(entry.gap),
        figures=dict(entry.figures),
        submitted_at=entry.submitted_at,
        run_id=entry.run_id,
    )


def run_out(run: Run) -> schemas.RunOut:
    """One run that has gone through `feedback.show_runs`."""
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


def run_detail_out(run: Run, *, is_organiser: bool = False) -> schemas.RunDetailOut:
    """One run with the results of the suites that may be shown."""
    results = shown_results(run, timezone.now(), is_organiser=is_organiser).prefetch_related("tasks")
    shown = run_out(show_run(run, timezone.now(), is_organiser=is_organiser))
    used = ResourceUse.objects.filter(run=run).first()
    return schemas.RunDetailOut(
        **shown.dict(),
        suites=[suite_result_out(result) for result in results],
        resources=None if used is None else schemas.ResourcesOut(**used.shown()),
    )


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


def submissions_out(submissions: Sequence[Submission]) -> list[schemas.SubmissionOut]:
    """Submissions with their runs, which have been fetched with them."""
    runs = [run for submission in submissions for run in submission.runs.all()]
    shown = {run.pk: run_out(run) for run in show_runs(runs, timezone.now())}
    return [_submission_out(submission, shown) for submission in submissions]


def _submission_out(submission: Submission, runs: Mapping[uuid.UUID, schemas.RunOut]) -> schemas.SubmissionOut:
    return schemas.SubmissionOut(
        id=submission.pk,
        name=submission.name,
        competition=submission.competition.slug,
        track=submission.track.slug,
        created_at=submission.created_at,
        filename=submission.original_filename,
        runs=[runs[run.pk] for run in submission.runs.all()],
    )
