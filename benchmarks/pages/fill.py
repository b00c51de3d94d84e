"""A database as full as a large site's: 50 competitions, 2,000 participants, 100,000 submissions, from a seed.

What is in it. The largest competition has a fifth of the submissions, and everybody on its board; the others share the
rest as Zipf's law has it. Of the runs 70 % are scored, with results of an open and a hidden suite, four tasks each with
the score of every question, events of every stage and what the run used; the rest failed, were cancelled, or wait.
Of the open suites' answers only those of the newest SAMPLED runs are there: all of them would be 17 million rows.

Rows are written by PostgreSQL's COPY. Only `fill` is meant for others.
"""

import json
import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Model
from django.utils import timezone

from tiltyard.accounts.models import User
from tiltyard.competitions.models import Competition, Page, Phase, Suite, Track
from tiltyard.leaderboards.keys import ranking_basis
from tiltyard.submissions.models import (
    Artefact,
    ResourceUse,
    Run,
    RunEvent,
    Sample,
    Submission,
    SuiteResult,
    TaskResult,
)
from tiltyard.submissions.states import FINAL, EventKind, FailureReason, RunState

TASKS = (("addition", "Addition", "arithmetic"), ("next_term", "Next term of a sequence", "sequences"))
TASKS += (("sort_words", "Sorting words", "words"), ("story", "Stories with numbers", "everyday"))
ITEMS = 60  # of a task
SAMPLED = 1000
QUEUED, RUNNING = 40, 4
_OVERVIEW = "## The aim\n\nMake a **very small** model answer well.\n\n" + "\n\n".join(
    f"### Part {number}\n\n" + "Start from `squire`, use any hardware, and be fair to the others. " * 12
    for number in range(6)
)
_STAGES = (RunState.PREPARING, RunState.BUILDING, RunState.EVALUATING, RunState.SCORING)
_SPREAD = 101  # item scores are drawn once for each percent


@dataclass
class Round:
    """One competition with what every one of its rows needs."""

    competition: Competition
    track: Track
    phase: Phase
    suites: list[Suite]
    basis: str
    participants: int
    submissions: int


def fill(*, competitions: int, participants: int, submissions: int, seed: int = 1) -> None:
    """Write everything into an empty, migrated PostgreSQL database."""
    chance = random.Random(seed)  # noqa: S311  not for secrets
    now = timezone.now()
    with transaction.atomic():
        people = User.objects.bulk_create(
            [User(username=f"participant-{n}", email=f"p{n}@pages.example") for n in range(participants)],
            batch_size=1000,
        )
        rounds = _rounds(competitions, participants, submissions, now)
        _write(rounds, people, chance, now)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def _rounds(competitions: int, participants: int, submissions: int, now: datetime) -> list[Round]:
    shares = [1 / (place + 1) for place in range(competitions)]
    counts = [max(20, round(submissions * share / sum(shares))) for share in shares]
    counts[0] += submissions - sum(counts)
    return [_round(place, count, participants, now) for place, count in enumerate(counts)]


def _round(place: int, submissions: int, participants: int, now: datetime) -> Round:
    competition = Competition.objects.create(
        slug=f"round-{place}",
        title=f"Little questions, round {place}",
        summary="Tune squire to answer short questions about numbers, words and small stories.",
        allowed_base_models=["squire"],
        base_images=["tiltyard/runtime:cpu"],
        reference_baselines=["base"],
        bundle_sha256="b" * 64,
    )
    for order, (slug, title) in enumerate((("overview", "Overview"), ("rules", "Rules"), ("data", "Data"))):
        Page.objects.create(competition=competition, slug=slug, title=title, body=_OVERVIEW, order=order)
    track = Track.objects.create(
        competition=competition, slug="cpu", title="CPU", hardware="2 CPU cores, 4 GiB", limits={"cpus": 2.0}
    )
    phase = Phase.objects.create(
        competition=competition,
        slug="main",
        title="Main phase",
        starts_at=now - timedelta(days=300),
        ends_at=now + timedelta(days=20 + place),
        daily_quota=5,
    )
    suites = [_suite(competition, order, visibility) for order, visibility in enumerate(Suite.Visibility.values)]
    entrants = participants if place == 0 else max(10, min(participants, submissions // 4))
    return Round(competition, track, phase, suites, ranking_basis(competition), entrants, submissions)


def _suite(competition: Competition, order: int, visibility: str) -> Suite:
    tasks = [
        {"name": name, "title": title, "family": family, "weight": 1.0, "items": ITEMS} for name, title, family in TASKS
    ]
    return Suite.objects.create(
        competition=competition,
        name=f"questions-{visibility}",
        title=f"{visibility.capitalize()} suite",
        version="1",
        visibility=visibility,
        sha256=f"{competition.pk:032x}{order:032x}",
        tasks=tasks,
        order=order,
    )


def _write(rounds: Sequence[Round], people: Sequence[User], chance: random.Random, now: datetime) -> None:
    artefacts, submissions, runs, events = [], [], [], []
    items = _item_scores(chance)
    scored: list[tuple[Run, Round, list[list[list[float]]]]] = []
    for one in rounds:
        for number in range(one.submissions):
            artefact = Artefact(sha256=uuid.UUID(int=chance.getrandbits(128)).hex * 2, kind="docker_context")
            artefact.size_bytes, artefact.pk = chance.randrange(10**6, 10**9), len(artefacts) + 1
            artefacts.append(artefact)
            submission, run = _submission(one, number, people=people, artefact=artefact, chance=chance, now=now)
            submissions.append(submission)
            runs.append(run)
            events += _events(run)
            if run.state == RunState.SCORED:
                scored.append((run, one, _answer(run, items, chance)))
    for rows in (artefacts, submissions, runs, events):
        copy(rows)
    _write_results(scored, chance)


def _submission(
    one: Round, number: int, *, people: Sequence[User], artefact: Artefact, chance: random.Random, now: datetime
) -> tuple[Submission, Run]:
    is_baseline = number < 2
    # The first ones have everybody take part once, the rest go to the busy ones more often.
    place = number if number < one.participants else int(one.participants * chance.random() ** 2)
    age = timedelta(days=280) * (1 - number / one.submissions) + timedelta(minutes=chance.randrange(600))
    name = ("base", "lora")[number] if is_baseline else f"entry-{place}-{chance.randrange(1000)}"
    submission = Submission(
        id=uuid.UUID(int=chance.getrandbits(128)),
        competition=one.competition,
        track=one.track,
        phase=one.phase,
        owner=people[place],
        artefact=artefact,
        name=name,
        manifest={
            "name": name,
            "base_model": "squire",
            "training_data": "40,000 fresh questions from the open suite's generators.",
            "licence": "Apache-2.0",
            "adapter": "openai",
            "description": "",
        },
        original_filename=f"{name}.tar.gz",
        is_baseline=is_baseline,
        created_at=now - age,
    )
    state = chance.choices([RunState.SCORED, RunState.FAILED, RunState.CANCELLED], [70, 25, 5])[0]
    if number < one.participants:  # so that everybody is on the board
        state = RunState.SCORED
    elif one.submissions - number <= QUEUED // (1 + one.competition.pk % 8):
        state = RunState.EVALUATING if one.submissions - number <= RUNNING // 4 else RunState.QUEUED
    return submission, _run(one, submission, state, chance, skill=0.25 + 0.6 * (place * 7919 % 997) / 997)


def _run(one: Round, submission: Submission, state: RunState, chance: random.Random, *, skill: float) -> Run:
    queued_at = submission.created_at
    run = Run(
        id=uuid.UUID(int=chance.getrandbits(128)),
        submission=submission,
        state=state,
        queue=one.track.queue,
        queued_at=queued_at,
        deadline_at=None if state in FINAL else queued_at + timedelta(days=700),
    )
    if state == RunState.QUEUED:
        return run
    run.attempt, run.worker, run.started_at = 1, f"host-{chance.randrange(8)}", queued_at + timedelta(seconds=30)
    run.build_log = "Step 1/4 : FROM tiltyard/runtime:cpu\n" + " ---> Running in 3f1c\nCollecting parts\n" * 60
    run.server_log = "INFO: 127.0.0.1 - POST /v1/completions 200\n" * 200
    run.image_digest = "sha256:" + "ab12" * 16
    if state in FINAL:
        run.finished_at = run.started_at + timedelta(seconds=chance.randrange(60, 900))
    if state == RunState.FAILED:
        run.failure_reason = chance.choice(list(FailureReason)).value
        run.failure_message = "The server stopped while it was being asked."
    if state == RunState.SCORED:
        run.open_score = min(1.0, max(0.0, skill + chance.gauss(0.03, 0.05)))
        run.hidden_score = min(1.0, max(0.0, skill + chance.gauss(-0.03, 0.05)))
        run.ranking_basis = one.basis
    return run


def _events(run: Run) -> Iterator[RunEvent]:
    def event(state: RunState, kind: EventKind, after_s: float, attempt: int) -> RunEvent:
        at = run.queued_at + timedelta(seconds=after_s)
        return RunEvent(run=run, attempt=attempt, at=at, kind=kind, state=state, message=f"{state.label}.")

    yield event(RunState.QUEUED, EventKind.QUEUED, 0, 0)
    if run.state == RunState.QUEUED:
        return
    for step, stage in enumerate(_STAGES):
        yield event(stage, EventKind.STAGE if step else EventKind.CLAIMED, 30 + 10 * step, 1)
        if stage == run.state:
            return
    yield event(RunState(run.state), EventKind.VERDICT, 100, 1)


def _answer(
    run: Run, items: dict[tuple[str, int], list[list[float]]], chance: random.Random
) -> list[list[list[float]]]:
    """Answers by suite and task for the scores that the run was to have; it gets those that these answers give."""
    suites = []
    for prefix, aim in (("open_", run.open_score or 0.0), ("hidden_", run.hidden_score or 0.0)):
        parts = [min(1.0, max(0.0, aim + chance.uniform(-0.15, 0.15))) for _ in TASKS]
        found = [chance.choice(items[name, round(100 * part)]) for (name, *_), part in zip(TASKS, parts, strict=True)]
        _set_score(run, prefix, sum(sum(scores) for scores in found) / (ITEMS * len(TASKS)), 0.035)
        suites.append(found)
    opened, hidden = run.open_score or 0.0, run.hidden_score or 0.0
    _set_score(run, "", (opened + hidden) / 2, 0.024)
    _set_score(run, "gap_", opened - hidden, 0.047)
    return suites


def _set_score(run: Run, prefix: str, value: float, width: float) -> None:
    low, high = (f"{prefix}low", f"{prefix}high") if prefix else ("score_low", "score_high")
    for name, number in (("gap" if prefix == "gap_" else f"{prefix}score", value), (low, value - width)):
        setattr(run, name, number)
    setattr(run, high, value + width)


def _write_results(scored: Sequence[tuple[Run, Round, list[list[list[float]]]]], chance: random.Random) -> None:
    results, tasks, used = [], [], []
    for run, one, answers in scored:
        for suite, answered, value in zip(one.suites, answers, (run.open_score, run.hidden_score), strict=True):
            result = SuiteResult(
                pk=len(results) + 1,
                run=run,
                suite=suite,
                score=value or 0.0,
                low=(value or 0.0) - 0.03,
                high=(value or 0.0) + 0.03,
                repro_hash="sha256:" + "c0ffee" * 10,
                wall_s=83.2,
                result={"schema": "tiltyard.result/1", "timing": {"latency_histogram": [0] * 300}},
                signed={"manifest": {"run": str(run.pk)}, "signature": "x" * 88},
            )
            results.append(result)
            for (name, title, family), scores in zip(TASKS, answered, strict=True):
                part = sum(scores) / ITEMS
                task = TaskResult(pk=len(tasks) + 1, suite_result=result, name=name, title=title, family=family)
                task.weight, task.items, task.score, task.low, task.high = 1.0, ITEMS, part, part - 0.08, part + 0.08
                task.item_scores = scores
                tasks.append(task)
        used.append(
            ResourceUse(
                run=run,
                attempt=1,
                wall_s=chance.uniform(60, 900),
                cpu_s=chance.uniform(50, 1500),
                memory_peak_bytes=chance.randrange(10**8, 4 * 10**9),
                tokens=4800,
                tokens_per_s=chance.uniform(5, 500),
            )
        )
    copy(results)
    copy(tasks)
    copy(used)
    newest = {run.pk for run, *_ in sorted(scored, key=lambda row: row[0].queued_at)[-SAMPLED:]}
    copy(_samples([task for task in tasks if task.suite_result.run_id in newest]))


def _item_scores(chance: random.Random) -> dict[tuple[str, int], list[list[float]]]:
    """By task and percent, six ways to score so much: the same questions are hard for everybody, with some luck."""
    found = {}
    for name, *_ in TASKS:
        difficulty = [(index + 0.5) / ITEMS for index in range(ITEMS)]
        chance.shuffle(difficulty)
        for percent in range(_SPREAD):
            found[name, percent] = [
                [float(hard + chance.gauss(0, 0.15) < percent / 100) for hard in difficulty] for _ in range(6)
            ]
    return found


def _samples(tasks: Iterable[TaskResult]) -> Iterator[Sample]:
    for task in tasks:
        if not task.suite_result.suite.is_hidden:
            for index, score in enumerate(task.item_scores):
                prompt = f"Question: What is {index} + {task.pk}?\nAnswer:"
                yield Sample(task_result=task, index=index, prompt=prompt, answer="5", expected="5", score=score)


def copy(rows: Iterable[Any]) -> None:
    """Write unsaved rows of one model; keys that they lack are numbered by the database."""
    rows = iter(rows)
    first: Model | None = next(rows, None)
    if first is None:
        return
    meta = first._meta
    fields = [field for field in meta.concrete_fields if not (field.primary_key and first.pk is None)]
    columns = ", ".join(f'"{field.column}"' for field in fields)
    with connection.cursor() as cursor:
        with cursor.copy(f'COPY "{meta.db_table}" ({columns}) FROM STDIN') as writer:
            for row in _and_rest(first, rows):
                writer.write_row([_plain(getattr(row, field.attname)) for field in fields])
        if first.pk is not None and meta.pk.get_internal_type() == "BigAutoField":
            sequence = f"SELECT setval(pg_get_serial_sequence('{meta.db_table}', 'id'), max(id)) FROM {meta.db_table}"  # noqa: S608
            cursor.execute(sequence)


def _and_rest(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value
