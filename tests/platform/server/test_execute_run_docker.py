"""Whole runs on a real engine: upload, build, evaluate both suites, score; and every way in which that can fail."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import docker
import pytest
import tiny_server
from bundles_for_tests import write_bundle
from django.conf import settings
from django.db import connection
from django.utils import timezone
from uploads_for_tests import context_archive

from tiltyard.accounts.models import User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.competitions.models import Competition
from tiltyard.leaderboards.board import leaderboard
from tiltyard.submissions.intake import accept_upload
from tiltyard.submissions.models import Run, Sample
from tiltyard.submissions.states import FailureReason, RunState
from tiltyard.worker.strays import INSTANCE, labels_of, results_dir, sweep_strays
from tiltyard.worker.tasks import execute_run

# The heartbeat writes from a thread of its own, which sees only what is committed.
pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

BASE = "tiltyard/python:3.11"
DOCKERFILE = f'ARG BASE={BASE}\nFROM ${{BASE}}\nCOPY . /app\nENV TINY_MODE=@mode@\nCMD ["python3", "/app/server.py"]\n'

Submit = Callable[..., Run]


@pytest.fixture
def competition(tmp_path: Path) -> Competition:
    return import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=tmp_path / "secrets")


@pytest.fixture
def submit(competition: Competition, tmp_path: Path) -> Submit:
    owner = User.objects.create_user("owner", "owner@example.org", "correct horse battery")

    def call(mode: str = "well", *, dockerfile: str = DOCKERFILE, crash_on: str = "") -> Run:
        path = context_archive(
            tmp_path / "entry.tar.gz",
            dockerfile=dockerfile.replace("@mode@", mode),
            files={"server.py": Path(tiny_server.__file__).read_text(), "crash_on.txt": crash_on},
        )
        track = competition.tracks.get()
        submission = accept_upload(
            owner=owner, competition=competition, track=track, path=path, filename=path.name, now=timezone.now()
        )
        return submission.runs.get()

    return call


@pytest.fixture(autouse=True)
def nothing_left(docker_client: docker.DockerClient) -> Iterator[None]:
    yield
    mine = {"label": f"{INSTANCE}={settings.INSTANCE}"}
    assert docker_client.containers.list(all=True, filters=mine) == []
    assert not list(Path(settings.WORK_DIR).glob("results-*"))


def finished(run: Run) -> Run:
    run = Run.objects.get(pk=run.pk)
    assert run.is_final, run.state
    return run


def limit(competition: Competition, **limits: float) -> None:
    track = competition.tracks.get()
    track.limits |= limits
    track.save()


def test_a_good_submission_is_scored_and_ranked(submit: Submit, competition: Competition) -> None:
    run = submit()
    execute_run(str(run.pk))
    run = finished(run)
    assert run.state == RunState.SCORED, run.failure_message
    path = ["queued", "preparing", "building", "evaluating", "scoring", "scored"]
    assert [event.state for event in run.events.all()] == path
    assert run.image_digest.startswith("sha256:")
    assert "listening, mode well" in run.server_log
    assert run.build_log
    assert (run.items_done, run.items_total) == (16, 16)
    results = {result.suite.visibility: result for result in run.suite_results.all()}
    assert set(results) == {"open", "hidden"}
    assert run.score == pytest.approx(results["hidden"].score)
    assert run.open_score == pytest.approx(results["open"].score)
    assert run.gap == pytest.approx(results["open"].score - results["hidden"].score)
    assert results["open"].repro_hash.startswith("sha256:")
    for result in results.values():
        assert [len(task.item_scores) for task in result.tasks.all()] == [4, 4]
    assert Sample.objects.filter(task_result__suite_result=results["open"]).count() == 8
    assert not Sample.objects.filter(task_result__suite_result=results["hidden"]).exists()
    board = leaderboard(competition, competition.tracks.get(), now=timezone.now())
    assert [(entry.rank, entry.run) for entry in board.entries] == [(1, run)]


def prompts_of(competition: Competition, visibility: str) -> list[str]:
    suite = competition.suites.get(visibility=visibility)
    lines = [line for path in suite.directory.glob("data/*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line)["prompt"] for line in lines]


def leaked(prompts: list[str]) -> list[tuple[str, str]]:
    """Each table that holds one of the prompts, in whatever writing, with the prompt."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  the names come from the database itself
            text = "\n".join(str(value) for row in cursor.fetchall() for value in row)
            writings = {prompt: {prompt, json.dumps(prompt)[1:-1], prompt.splitlines()[0]} for prompt in prompts}
            found += [(table, prompt) for prompt in prompts if any(writing in text for writing in writings[prompt])]
    return found


def test_no_hidden_question_reaches_the_database(submit: Submit, competition: Competition) -> None:
    run = submit()  # its server prints every question that it is asked
    execute_run(str(run.pk))
    assert finished(run).state == RunState.SCORED
    hidden = prompts_of(competition, "hidden")
    assert leaked(prompts_of(competition, "open"))
    assert leaked(hidden) == []


def test_a_crash_on_the_hidden_suite_says_no_more_than_that(submit: Submit, competition: Competition) -> None:
    hidden = prompts_of(competition, "hidden")
    run = submit(crash_on=hidden[0])
    execute_run(str(run.pk))
    run = finished(run)
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.CRASHED)
    assert run.failure_message == (
        "The server ended while it was still needed. "
        "This happened on a hidden suite, so no details are shown. Try the open suite: tiltyard evaluate."
    )
    assert leaked(hidden) == []
    assert not run.suite_results.exists()


def test_a_dockerfile_that_fails(submit: Submit) -> None:
    run = submit(dockerfile=f'FROM {BASE}\nRUN ["python3", "-c", "print(40 + 2); raise SystemExit(7)"]\n')
    execute_run(str(run.pk))
    run = finished(run)
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.BUILD_FAILED)
    assert "42" in run.failure_message
    assert "42" in run.build_log


def test_a_server_that_never_gets_ready(submit: Submit, competition: Competition) -> None:
    limit(competition, start_s=4)
    run = submit("never-ready")
    execute_run(str(run.pk))
    run = finished(run)
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.START_TIMEOUT)
    assert "The log ends:" in run.failure_message
    assert "listening, mode never-ready" in run.server_log


def test_a_server_that_crashes_at_the_third_request(submit: Submit) -> None:
    run = submit("crash")
    execute_run(str(run.pk))
    run = finished(run)
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.CRASHED)
    assert "status 3" in run.failure_message
    assert "now I crash" in run.failure_message


def test_a_server_that_answers_rubbish(submit: Submit) -> None:
    run = submit("rubbish")
    execute_run(str(run.pk))
    run = finished(run)
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.PROTOCOL_ERROR)
    assert run.failure_message


def test_a_server_that_is_too_slow(submit: Submit, competition: Competition) -> None:
    limit(competition, start_s=3, evaluate_s=5)
    run = submit("slow")
    execute_run(str(run.pk))
    run = finished(run)
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.TIME_LIMIT)
    assert "time limit" in run.failure_message


def test_cancelling_stops_the_containers_within_seconds(submit: Submit, docker_client: docker.DockerClient) -> None:
    run = submit("slow")
    worker = threading.Thread(target=_execute_on_thread, args=(str(run.pk),))
    worker.start()
    mine = {"label": f"{INSTANCE}={settings.INSTANCE}"}
    deadline = time.monotonic() + 60
    while len(docker_client.containers.list(filters=mine)) < 2:
        assert time.monotonic() < deadline, "the pair never ran"
        time.sleep(0.1)
    asked = time.monotonic()
    assert Run.objects.get(pk=run.pk).request_cancel(timezone.now())
    worker.join(timeout=20)
    assert not worker.is_alive()
    assert time.monotonic() - asked < 10
    run = finished(run)
    assert (run.state, run.failure_reason) == (RunState.CANCELLED, "")


def test_a_platform_failure_is_tried_again_and_never_charged(submit: Submit, competition: Competition) -> None:
    competition.suites.filter(visibility="open").update(sha256="0" * 64)  # a suite that is not on this machine
    run = submit()
    for attempt in (1, 2):
        execute_run(str(run.pk))
        run.refresh_from_db()
        assert (run.state, run.attempt) == (RunState.QUEUED, attempt)
    execute_run(str(run.pk))
    run = finished(run)
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.INFRA_ERROR)
    assert not Run.objects.charged().exists()


def test_strays_are_swept_and_live_containers_stay(submit: Submit, docker_client: docker.DockerClient) -> None:
    dead, live = submit(), Run.claim(submit().pk, "worker", timezone.now())
    assert live is not None
    for run in (dead, live):
        docker_client.containers.run(BASE, ["python3", "-c", "input()"], labels=labels_of(run), detach=True, tty=True)
    assert sweep_strays(docker_client) == 1
    live.transition(RunState.CANCELLED, "Cancelled.")
    assert sweep_strays(docker_client) == 1


class _SlowEngine:
    """The engine, and a run that another worker begins while the engine lists its containers."""

    def __init__(self, client: docker.DockerClient, begin: Callable[[], None]) -> None:
        self._client = client
        self._begin = begin
        self.containers = self

    def list(self, **arguments: Any) -> Any:
        self._begin()
        return self._client.containers.list(**arguments)


def test_a_run_that_begins_during_the_sweep_stays(submit: Submit, docker_client: docker.DockerClient) -> None:
    begun: list[Run] = []

    def begin() -> None:
        if begun:
            return
        run = Run.claim(submit().pk, "other worker", timezone.now())
        assert run is not None
        docker_client.containers.run(BASE, ["python3", "-c", "input()"], labels=labels_of(run), detach=True, tty=True)
        begun.append(run)

    assert sweep_strays(cast(docker.DockerClient, _SlowEngine(docker_client, begin))) == 0
    begun[0].transition(RunState.CANCELLED, "Cancelled.")
    assert sweep_strays(docker_client) == 1


def test_the_results_of_a_dead_worker_are_swept(submit: Submit, docker_client: docker.DockerClient) -> None:
    live, dead = (Run.claim(submit().pk, "worker", timezone.now()) for _ in range(2))
    assert live is not None
    assert dead is not None
    left = Path(settings.WORK_DIR) / f"results-{dead.pk}-{dead.attempt}-abcd_123"
    left.mkdir()
    (left / "samples.jsonl").write_text("hidden questions")
    dead.transition(RunState.QUEUED, "Taken back.")
    with results_dir(live) as directory:
        sweep_strays(docker_client)
        assert directory.is_dir()
    assert not left.exists()


def _execute_on_thread(run_id: str) -> None:
    try:
        execute_run(run_id)
    finally:
        connection.close()
