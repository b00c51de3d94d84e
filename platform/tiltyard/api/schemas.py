"""The JSON that the API answers with."""

import uuid
from datetime import datetime
from typing import Any

from ninja import Schema

from tiltyard.leaderboards.documents import EntryStatistics, Range


class ErrorOut(Schema):
    detail: str


class MeOut(Schema):
    username: str
    email: str
    is_staff: bool


class IntervalOut(Schema):
    """A value with its 95 % interval; scores lie in 0..1, differences in −1..1.

    Without bounds it is what the Ladder publishes while a round is on.
    """

    value: float
    low: float | None
    high: float | None


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
    columns: list[str]
    rank_by: dict[str, Any] | None
    limits: dict[str, Any]


class SuiteOut(Schema):
    """What is public about a suite; of a hidden one its tasks are, its questions are not.

    `commitment` is the hash of the secret that made it, null where no secret did.
    """

    name: str
    title: str
    version: str
    visibility: str
    sha256: str
    commitment: str | None
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
    scoring: dict[str, Any]
    feedback: dict[str, Any]
    base_images: list[str]
    registries: list[str]
    upload_bytes_max: int
    phases: list[PhaseOut]
    tracks: list[TrackOut]
    suites: list[SuiteOut]
    evaluator: EvaluatorOut


class EntryOut(Schema):
    """One row of a board.

    `score` ranks; `weighted_mean` is the same unless the competition has another rule. `is_baseline` entries are the
    organisers', `is_reference` ones those that gaps are compared with. `statistics` are null while hidden scores are
    withheld, and for some seconds after the board has changed. `figures` are those of the track's columns: null is not
    measured.
    """

    rank: int | None
    is_tied: bool
    name: str
    owner: str
    is_baseline: bool
    is_reference: bool
    statistics: EntryStatistics | None
    score: IntervalOut
    weighted_mean: IntervalOut
    open: IntervalOut | None
    hidden: IntervalOut | None
    gap: IntervalOut | None
    figures: dict[str, float | None]
    submitted_at: datetime
    run_id: uuid.UUID


class ColumnOut(Schema):
    """What a track shows beside the score."""

    name: str
    title: str
    unit: str


class LeaderboardOut(Schema):
    """A board.

    Attributes:
        entries_total: How many entries it has; `entries` are those that were asked for.
        columns: The track's columns; `ranked_by` is the name of the one that ranks, null where the score does.
        rule: What makes the score: `weighted_mean`, `normalised` or `geometric_mean_of_win_rates`.
        feedback: What of hidden scores is shown now: `full`, `ladder` or `none`.
        correlation: Spearman's rank correlation of open and hidden scores.
        detectable: The smallest difference of two scores that is found with 80 % probability, by part of the score.
        references: Names of the baselines that gaps are compared with.
        margin: How much more than these an honest entry may lose.
        problem: Why the competition's rule could not be applied; else empty.
    """

    competition: str
    track: str
    made_at: datetime
    rule: str
    feedback: str
    correlation: Range | None
    detectable: dict[str, float]
    references: list[str]
    margin: float | None
    problem: str
    columns: list[ColumnOut]
    ranked_by: str | None
    entries_total: int
    entries: list[EntryOut]


class SubmittedOut(Schema):
    submission_id: uuid.UUID
    run_id: uuid.UUID
    url: str


class SuiteResultOut(Schema):
    """Of a hidden suite there is none while its scores are withheld."""

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


class ResourcesOut(Schema):
    """What the evaluation used, measured from outside, with two digits that count; null: not measured.

    `gpu_utilisation` is a mean in 0..1, `energy_j` the GPU's. A token is a word, a number or a mark of an answer, for
    every submission alike.
    """

    wall_s: float | None
    cpu_s: float | None
    memory_peak_bytes: float | None
    gpu_utilisation: float | None
    gpu_memory_peak_bytes: float | None
    energy_j: float | None
    tokens_per_s: float | None


class RunDetailOut(RunOut):
    suites: list[SuiteResultOut]
    resources: ResourcesOut | None


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
    kind: str
    state: str
    message: str


class LogsOut(Schema):
    build_log: str
    server_log: str


class CancelOut(Schema):
    state: str
    cancel_requested: bool


class SigningKeyOut(Schema):
    algorithm: str
    public_key: str
    retired: list[str]


class HealthOut(Schema):
    status: str
    database: bool
    redis: bool
