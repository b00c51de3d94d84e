"""Whole runs on a real engine: upload, build, evaluate both suites, score; and every way in which that can fail."""

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import docker
import pytest
from bundles_for_tests import write_bundle
from django.conf import settings
from django.test import Client
from django.utils import timezone
from leaks import leaked, leaks_in, prompts_of
from own_images import make_own_images
from pytest_django.fixtures import Settings
from reachable import read_everything
from tiny_entries import BASE, DOCKERFILE, hand_in
from uploads_for_tests import context_archive

from tiltyard.accounts.models import ApiToken, User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.competitions.models import Competition
from tiltyard.leaderboards.board import leaderboard
from tiltyard.submissions.manifests import public_key
from tiltyard.submissions.models import Run, Sample
from tiltyard.submissions.quota import quota_for
from tiltyard.submissions.states import FailureReason, RunState
from tiltyard.worker.strays import INSTANCE, labels_of, owner_of, results_dir, sweep_strays
from tiltyard.worker.tasks import execute_run, sweep_at_start
from tiltyard_eval.manifest import verify
from tiltyard_sandbox.digests import content_digest
from tiltyard_sandbox.images import build_image
from tiltyard_sandbox.leftovers import find_leftovers
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.owners import RUN_TAG, named_by

# The heartbeat writes from a thread of its own, which sees only what is committed.
pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

Submit = Callable[..., Run]


@pytest.fixture
def competition(tmp_path: Path) -> Competition:
    return import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=tmp_path / "secrets")


@pytest.fixture
def submit(competition: Competition, tmp_path: Path) -> Submit:
    owner = User.objects.create_user("owner", "owner@example.org", "correct horse battery")

    return functools.partial(hand_in, competition, owner, tmp_path)


@pytest.fixture(autouse=True)
def nothing_left(docker_client: docker.DockerClient) -> Iterator[None]:
    make_own_images()
    yield
    mine = {"label": f"{INSTANCE}={settings.INSTANCE}"}
    assert docker_client.containers.list(all=True, filters=mine) == []
    site = hashlib.sha256(settings.INSTANCE.encode()).hexdigest()[:12]
    assert find_leftovers(docker_client, site) == []
    assert not [path for kind in ("results", "scratch") for path in Path(settings.WORK_DIR).glob(f"{kind}-*")]


def finished(run: Run) -> Run:
    run = Run.objects.get(pk=run.pk)
    assert run.is_final, run.state
    return run


def limit(competition: Competition, **limits: float) -> None:
    track = competition.tracks.get()
    track.limits |= limits
    track.save()


def test_a_good_submission_is_scored_and_ranked(
    submit: Submit, competition: Competition, docker_client: docker.DockerClient
) -> None:
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
    evaluator = content_digest(docker_client, settings.EVALUATOR_IMAGE)
    for result in results.values():
        assert [len(task.item_scores) for task in result.tasks.all()] == [4, 4]
        manifest = verify(result.signed, public_key())
        assert (manifest["run"], manifest["repro_hash"]) == (str(run.pk), result.repro_hash)
        assert manifest["evaluator_image_digest"] == evaluator
    assert Sample.objects.filter(task_result__suite_result=results["open"]).count() == 8
    assert not Sample.objects.filter(task_result__suite_result=results["hidden"]).exists()
    board = leaderboard(competition, competition.tracks.get(), now=timezone.now())
    assert [(entry.rank, entry.run_id) for entry in board.entries] == [(1, run.pk)]


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


@pytest.mark.parametrize("mode", ["echo", "tell", "well"])
def test_no_hidden_question_can_be_read_anywhere(
    submit: Submit, competition: Competition, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """The canary: whatever a server does with a hidden question, nobody finds it in what the site shows or logs."""
    hidden, opened = (prompts_of(competition, visibility) for visibility in ("hidden", "open"))
    competition.suites.filter(visibility="open").update(order=9)  # the hidden suite is asked first
    # The server of mode "well" prints all questions, and dies of the last hidden one.
    run = submit(mode, crash_on=hidden[-1] if mode == "well" else "")
    with caplog.at_level("DEBUG"):
        execute_run(str(run.pk))
    run = finished(run)
    values = {
        "run_id": [str(run.pk)],
        "slug": [competition.slug],
        "suite": [suite.name for suite in competition.suites.all()],
        "page_slug": ["overview"],
    }
    stranger = User.objects.create_user("stranger", "stranger@example.org", "correct horse battery")
    organiser = User.objects.create_superuser("organiser", "organiser@example.org", "correct horse battery")
    read = {"the log": caplog.text}
    for reader in (run.submission.owner, stranger, organiser):
        client = Client()
        client.force_login(reader)
        _, token = ApiToken.issue(reader, "laptop")
        for headers in ({}, {"authorization": f"Bearer {token}"}):
            client.defaults.update({"HTTP_AUTHORIZATION": headers["authorization"]} if headers else {})
            read |= {f"{reader} {where}": text for where, text in read_everything(client, values).items()}
    assert any(f"/runs/{run.pk}/logs" in where for where in read)
    assert any("/admin/submissions/run/" in where for where in read)
    assert any("leaderboard.csv" in where for where in read)
    assert any(where.endswith("/events") for where in read)
    assert leaks_in(read, hidden) == []
    assert leaked(hidden) == []
    if mode == "echo":  # the open suite's questions are found, so the search finds what is there
        assert run.state == RunState.SCORED
        assert leaks_in(read, opened)


def test_a_dockerfile_that_fails(submit: Submit) -> None:
    run = submit(dockerfile=f'FROM {BASE}\nRUN ["python3", "-c", "print(40 + 2); raise SystemExit(7)"]\n')
    execute_run(str(run.pk))
    run = finished(run)
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.BUILD_FAILED)
    said, _, log_end = run.failure_message.partition("\n\nThe log ends:\n")
    assert "returned a non-zero code: 7" in said
    assert "42" in log_end
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
    assert quota_for(run.submission.owner, competition, timezone.now()).total_used == 0


def test_strays_are_swept_and_live_containers_stay(submit: Submit, docker_client: docker.DockerClient) -> None:
    dead, live = submit(), Run.claim(submit().pk, "worker", timezone.now())
    assert live is not None
    for run in (dead, live):
        docker_client.containers.run(BASE, ["python3", "-c", "input()"], labels=labels_of(run), detach=True, tty=True)
    assert sweep_strays(docker_client) == 1
    live.transition(RunState.CANCELLED, "Cancelled.")
    assert sweep_strays(docker_client) == 1


@pytest.fixture
def leave_images(docker_client: docker.DockerClient, tmp_path: Path) -> Callable[[Run], set[str]]:
    """What an attempt has in the engine in mid-run: a loaded image by its tag, and a built one by its id."""

    def call(run: Run) -> set[str]:
        tag = f"{RUN_TAG}{named_by(owner_of(run))}"
        docker_client.images.get(BASE).tag(tag)
        built = build_image(
            docker_client,
            context_archive(tmp_path / "image.tar.gz", dockerfile=DOCKERFILE),
            allowed_bases=[BASE],
            base_args={},
            limits=Limits(),
            on_log=print,
            cancel=threading.Event(),
            owner=owner_of(run),
            gauge_image=None,
        )
        return {tag, built.image_id}

    return call


def references(client: docker.DockerClient) -> set[str]:
    images = client.api.images(all=True)
    return {image["Id"] for image in images} | {tag for image in images for tag in image["RepoTags"] or []}


def test_images_of_dead_attempts_are_swept_and_those_of_live_ones_stay(
    submit: Submit, docker_client: docker.DockerClient, leave_images: Callable[[Run], set[str]]
) -> None:
    dead, live = (Run.claim(submit().pk, "worker", timezone.now()) for _ in range(2))
    assert dead is not None
    assert live is not None
    left, used = leave_images(dead), leave_images(live)
    assert left | used <= references(docker_client)
    Run.objects.filter(pk=dead.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    sweep_at_start()
    assert not left & references(docker_client)
    assert used | {BASE} <= references(docker_client)
    live.transition(RunState.CANCELLED, "Cancelled.")
    sweep_at_start()
    assert not used & references(docker_client)
    assert BASE in references(docker_client)


def test_another_sites_images_stay(
    submit: Submit,
    docker_client: docker.DockerClient,
    leave_images: Callable[[Run], set[str]],
    settings: Settings,
) -> None:
    run = Run.claim(submit().pk, "worker", timezone.now())
    assert run is not None
    left = leave_images(run)
    run.transition(RunState.CANCELLED, "Cancelled.")
    ours, settings.INSTANCE = settings.INSTANCE, "another-site"
    assert sweep_strays(docker_client) == 0
    assert left <= references(docker_client)
    settings.INSTANCE = ours
    assert sweep_strays(docker_client) > 0
    assert not left & references(docker_client)


class _SlowEngine:
    """The engine, and a run that another worker begins while the engine lists its containers."""

    def __init__(self, client: docker.DockerClient, begin: Callable[[], None]) -> None:
        self._client = client
        self._begin = begin
        self.containers = self
        self.api = client.api

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
