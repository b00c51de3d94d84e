"""Rows for the tests of the site: a competition with both kinds of suite, participants, and runs in every state."""

import json
import random
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Page, Phase, Suite, Track
from tiltyard.leaderboards.changes import board_changed
from tiltyard.leaderboards.keys import ranking_basis
from tiltyard.submissions.models import Artefact, Run, RunEvent, Sample, Submission, SuiteResult, TaskResult
from tiltyard.submissions.states import FINAL, FailureReason, RunState

TASKS = [
    ("addition", "Addition", "arithmetic"),
    ("next_term", "Next term of a sequence", "sequences"),
    ("sort_words", "Sorting words", "words"),
    ("story", "Stories with numbers", "everyday"),
]


@dataclass
class Site:
    """A competition that is open now, and who takes part."""

    competition: Competition
    track: Track
    phase: Phase
    suites: list[Suite]
    owner: User
    stranger: User
    staff: User
    now: datetime
    runs: dict[str, Run] = field(default_factory=dict)


def make_site(now: datetime, *, title: str = "Little Questions", slug: str = "little-questions") -> Site:
    competition = Competition.objects.create(
        slug=slug,
        title=title,
        summary="Tune squire to answer short questions about numbers, words and small stories.",
        allowed_base_models=["squire"],
        allowed_training_data="Anything that you generated or that is openly licensed.",
        base_images=["tiltyard/runtime:cpu"],
        bundle_sha256="b" * 64,
    )
    Page.objects.create(
        competition=competition,
        slug="overview",
        title="Overview",
        body="## The aim\n\nMake a **very small** model answer well.\n\n- Start from `squire`.\n- Use any hardware.\n\n"
        "| suite | questions |\n|---|---|\n| open | published |\n| hidden | kept secret |\n",
    )
    Page.objects.create(
        competition=competition, slug="rules", title="Rules", body="1. Be fair.\n2. One account a person.\n", order=1
    )
    track = Track.objects.create(
        competition=competition,
        slug="cpu",
        title="CPU",
        hardware="2 CPU cores, 4 GiB",
        limits={"cpus": 2.0, "memory_bytes": 4 << 30, "evaluate_s": 900.0},
    )
    phase = Phase.objects.create(
        competition=competition,
        slug="main",
        title="Main phase",
        starts_at=now - timedelta(days=3),
        ends_at=now + timedelta(days=20),
        daily_quota=5,
        total_quota=40,
        concurrent_quota=2,
    )
    suites = [make_suite(competition, visibility, order) for order, visibility in enumerate(Suite.Visibility.values)]
    people = [
        User.objects.create_user(
            name if slug == "little-questions" else f"{name}-{slug}", f"{name}@{slug}.example", "correct horse battery"
        )
        for name in ("owner", "stranger", "staff")
    ]
    people[2].is_staff = people[2].is_superuser = True
    people[2].save()
    return Site(competition, track, phase, suites, *people, now)


def make_suite(competition: Competition, visibility: str, order: int) -> Suite:
    sha256 = uuid.uuid4().hex * 2
    tasks = [
        {"name": name, "title": title, "family": family, "weight": 1.0, "items": 60} for name, title, family in TASKS
    ]
    if visibility == Suite.Visibility.HIDDEN:
        tasks[0] = {"name": "riddle", "title": "Riddles", "family": "everyday", "weight": 1.0, "items": 90}
    suite = Suite.objects.create(
        competition=competition,
        name=f"demo-{visibility}",
        title=f"{visibility.capitalize()} suite",
        version="1",
        visibility=visibility,
        sha256=sha256,
        tasks=tasks,
        order=order,
    )
    data = suite.directory / "data"
    data.mkdir(parents=True)
    for task in tasks:
        item = {
            "prompt": f"Question of {visibility} task {task['name']}.\nWhat is 2 + 3?\nAnswer:",
            "answer": "5",
            "task": task["name"],
            "level": 1,
        }
        (data / f"{task['name']}.jsonl").write_text(json.dumps(item) + "\n")
    return suite


def make_run(
    site: Site, name: str, *, owner: User | None = None, is_baseline: bool = False, state: RunState = RunState.QUEUED
) -> Run:
    """A queued run, moved on by hand to `state` with its events."""
    artefact = Artefact.objects.create(sha256=uuid.uuid4().hex * 2, kind="docker_context", size_bytes=5_000_000)
    submission = Submission.objects.create(
        competition=site.competition,
        track=site.track,
        phase=site.phase,
        owner=owner or site.owner,
        artefact=artefact,
        name=name,
        manifest={
            "name": name,
            "base_model": "squire",
            "training_data": "40,000 fresh questions from the open suite's generators.",
            "licence": "Apache-2.0",
            "adapter": "openai",
        },
        original_filename=f"{name}.tar.gz",
        is_baseline=is_baseline,
        created_at=site.now,
    )
    queued_at = site.now - timedelta(minutes=4)
    run = Run.objects.create(
        submission=submission,
        queued_at=queued_at,
        deadline_at=None if state in FINAL else queued_at + timedelta(days=7),
        queue=site.track.queue,
        state=state,
    )
    RunEvent.objects.create(run=run, attempt=0, at=queued_at, state=RunState.QUEUED, message="Accepted and queued.")
    if state == RunState.QUEUED:
        return run
    run.attempt, run.started_at = 1, queued_at + timedelta(seconds=4)
    path = [RunState.PREPARING, RunState.BUILDING, RunState.EVALUATING, RunState.SCORING]
    reached = path[: path.index(state) + 1] if state in path else path
    for step, stage in enumerate(reached):
        at = run.started_at + timedelta(seconds=40 * step)
        RunEvent.objects.create(run=run, attempt=1, at=at, state=stage, message=f"{stage.label}.")
    run.build_log = "Step 1/4 : FROM tiltyard/runtime:cpu\n ---> 3f1c\nStep 2/4 : COPY . /app\nSuccessfully built\n"
    if state == RunState.EVALUATING:
        run.current_suite, run.items_done, run.items_total = "Open suite", 118, 240
    if run.is_final:
        run.finished_at = site.now - timedelta(seconds=20)
        RunEvent.objects.create(run=run, attempt=1, at=run.finished_at, state=state, message=f"{state.label}.")
    run.save()
    return run


def fail(run: Run, reason: FailureReason, message: str) -> Run:
    run.failure_reason, run.failure_message, run.server_log = reason, message, "Traceback: boom\n"
    run.save()
    return run


def score(run: Run, open_score: float, hidden_score: float) -> Run:
    """Give a run in state `scored` results that agree with one another."""
    competition = run.submission.competition
    for suite, value in zip(competition.suites.all(), (open_score, hidden_score), strict=True):
        _suite_result(run, suite, value)
    run.score = open_score / 2 + hidden_score / 2
    run.score_low, run.score_high = max(0.0, run.score - 0.024), min(1.0, run.score + 0.024)
    run.open_score, run.open_low, run.open_high = open_score, max(0, open_score - 0.035), min(1, open_score + 0.035)
    run.hidden_score, run.hidden_low = hidden_score, max(0.0, hidden_score - 0.032)
    run.hidden_high = min(1.0, hidden_score + 0.032)
    run.gap = open_score - hidden_score
    run.gap_low, run.gap_high = run.gap - 0.046, run.gap + 0.046
    run.ranking_basis = ranking_basis(competition)
    run.image_digest = "sha256:" + "ab12" * 16
    run.save()
    board_changed([run.submission.track_id])
    return run


def _suite_result(run: Run, suite: Suite, value: float) -> None:
    result = SuiteResult.objects.create(
        run=run,
        suite=suite,
        score=value,
        low=max(0, value - 0.03),
        high=min(1, value + 0.03),
        repro_hash="sha256:" + "c0ffee" * 10,
        wall_s=83.2,
        result={},
    )
    chance = random.Random(f"{run.submission.name} {suite.name}")  # noqa: S311  not for secrets
    for task in suite.tasks:
        part = min(1.0, max(0.0, value + chance.uniform(-0.15, 0.15)))
        row = TaskResult.objects.create(
            suite_result=result,
            name=task["name"],
            title=task["title"],
            family=task["family"],
            weight=1.0,
            items=task["items"],
            score=part,
            low=max(0.0, part - 0.08),
            high=min(1.0, part + 0.08),
            format_failures=chance.randrange(4),
            item_scores=[float(difficulty < part) for difficulty in _difficulties(task["name"], task["items"])],
        )
        if not suite.is_hidden:
            Sample.objects.bulk_create(_samples(row, chance))


def _difficulties(task: str, items: int) -> list[float]:
    """Of a task's questions, spread over 0..1 and the same for every run, so that runs can be compared by item."""
    spread = [(index + 0.5) / items for index in range(items)]
    random.Random(task).shuffle(spread)  # noqa: S311  not for secrets
    return spread


def _samples(row: TaskResult, chance: random.Random) -> list[Sample]:
    samples = []
    for index in range(row.items):
        a, b = chance.randrange(900), chance.randrange(900)
        is_right = chance.random() < row.score
        answer = str(a + b if is_right else a + b + chance.choice([-10, 1, 100]))
        samples.append(
            Sample(
                task_result=row,
                index=index,
                prompt=f"Question: What is {a} + {b}?\nAnswer:",
                answer=answer,
                expected=str(a + b),
                score=float(is_right),
            )
        )
    return samples
