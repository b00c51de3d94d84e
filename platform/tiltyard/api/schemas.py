"""The JSON that the API answers with."""

import uuid
from datetime import datetime
from typing import Any

from ninja import Schema


class ErrorOut(Schema):
    detail: str


class MeOut(Schema):
    username: str
    email: str
    is_staff: bool


class IntervalOut(Schema):
    """A value with its 95 % interval; scores lie in 0..1, differences in −1..1."""

    value: float
    low: float
    high: float


class PhaseOut(Schema):
    slug: str
    title: str
    starts_at: datetime
    ends_at: datetime
    daily_quota: int
    total_quota: int
    concurrent_quota: int


class TrackOut(Schema):
    slug: str
    title: str
    hardware: str
    needs_gpu: bool
    limits: dict[str, Any]


class SuiteOut(Schema):
    """What is public about a suite; of a hidden one its tasks are, its questions are not."""

    name: str
    title: str
    version: str
    visibility: str
    sha256: str
    weight: float
    items: int
    tasks: list[dict[str, Any]]
    archive_url: str | None


class EvaluatorOut(Schema):
    """What makes a local evaluation the server's."""

    image: str
    version: str
    seed: int


class CompetitionOut(Schema):
    slug: str
    title: str
    summary: str
    url: str
    current_phase: PhaseOut | None


class CompetitionDetailOut(CompetitionOut):
    base_models: list[str]
    training_data: str
    base_images: list[str]
    upload_bytes_max: int
    phases: list[PhaseOut]
    tracks: list[TrackOut]
    suites: list[SuiteOut]
    evaluator: EvaluatorOut


class EntryOut(Schema):
    rank: int | None
    is_tied: bool
    name: str
    owner: str
    is_baseline: bool
    score: IntervalOut
    open: IntervalOut | None
    hidden: IntervalOut | None
    gap: IntervalOut | None
    submitted_at: datetime
    run_id: uuid.UUID


class LeaderboardOut(Schema):
    competition: str
    track: str
    made_at: datetime
    entries: list[EntryOut]


class SubmittedOut(Schema):
    submission_id: uuid.UUID
    run_id: uuid.UUID
    url: str


class SuiteResultOut(Schema):
    suite: str
    title: str
    visibility: str
    score: IntervalOut
    repro_hash: str
    tasks: list[dict[str, Any]]


class RunOut(Schema):
    id: uuid.UUID
    submission_id: uuid.UUID
    name: str
    competition: str
    track: str
    url: str
    state: str
    is_final: bool
    failure_reason: str | None
    failure_message: str | None
    attempt: int
    cancel_requested: bool
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    current_suite: str | None
    items_done: int
    items_total: int
    image_digest: str | None
    score: IntervalOut | None
    open: IntervalOut | None
    hidden: IntervalOut | None
    gap: IntervalOut | None


class RunDetailOut(RunOut):
    suites: list[SuiteResultOut]


class SubmissionOut(Schema):
    id: uuid.UUID
    name: str
    competition: str
    track: str
    created_at: datetime
    filename: str
    runs: list[RunOut]


class EventOut(Schema):
    id: int
    attempt: int
    at: datetime
    state: str
    message: str


class LogsOut(Schema):
    build_log: str
    server_log: str


class CancelOut(Schema):
    state: str
    cancel_requested: bool


class HealthOut(Schema):
    status: str
    database: bool
    redis: bool
