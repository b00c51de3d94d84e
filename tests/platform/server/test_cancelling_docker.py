"""A run that its owner cancels is over within five seconds of the click, whatever it was doing.

The moments are those of the engine's events and of the run's row, so that a test that looks late is not misled.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from bundles_for_tests import write_bundle
from django.conf import settings
from django.db import connection
from django.test import Client
from own_images import make_own_images
from tiny_entries import BASE, DOCKERFILE, hand_in

from tiltyard.accounts.models import User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState
from tiltyard.worker.strays import INSTANCE
from tiltyard.worker.tasks import execute_run

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

CANCELLED_WITHIN_S = 5.0
LONG_BUILD = f'FROM {BASE}\nCOPY . /app\nRUN ["python3", "-c", "import time; print(42, flush=True); time.sleep(600)"]\n'


@pytest.fixture(autouse=True)
def nothing_left(docker_client: docker.DockerClient) -> Iterator[None]:
    make_own_images()
    yield
    mine = {"label": f"{INSTANCE}={settings.INSTANCE}"}
    assert docker_client.containers.list(all=True, filters=mine) == []


def _execute(run_id: str) -> None:
    try:
        execute_run(run_id)
    finally:
        connection.close()


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def _deaths_s(client: docker.DockerClient, since_s: float, labels: dict[str, str]) -> list[float]:
    """When containers with these labels ended since then, by the engine's clock, which is this machine's."""
    filters = {"type": "container", "event": "die", "label": [f"{name}={value}" for name, value in labels.items()]}
    events = client.events(since=int(since_s), until=int(time.time()) + 1, filters=filters, decode=True)
    return [event["timeNano"] / 1e9 for event in events]


@pytest.fixture
def owner() -> User:
    return User.objects.create_user("owner", "owner@example.org", "correct horse battery")


@pytest.fixture
def begun(owner: User, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """A run under way on a thread, which has ended when the test has."""
    threads: list[threading.Thread] = []

    def begin(mode: str, **options: Any) -> Run:
        competition = import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=tmp_path / "secrets")
        run = hand_in(competition, owner, tmp_path, mode, **options)
        threads.append(threading.Thread(target=_execute, args=(str(run.pk),)))
        threads[0].start()
        return run

    yield begin
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def _click(owner: User, run: Run) -> float:
    """The owner's, on the page; when."""
    client = Client()
    client.force_login(owner)
    clicked_s = time.time()
    assert client.post(f"{run.get_absolute_url()}cancel/").status_code == 302
    return clicked_s


def _cancelled(run: Run, clicked_s: float) -> None:
    _until(lambda: Run.objects.get(pk=run.pk).is_final, "it never ended")
    run.refresh_from_db()
    assert (run.state, run.failure_reason) == (RunState.CANCELLED, "")
    assert run.finished_at is not None
    assert run.finished_at.timestamp() - clicked_s < CANCELLED_WITHIN_S
    assert run.events.last().message == "Cancelled; the containers are gone."


def test_while_it_is_asked(docker_client: docker.DockerClient, owner: User, begun: Callable[..., Run]) -> None:
    run = begun("slow", dockerfile=DOCKERFILE)
    mine = {INSTANCE: settings.INSTANCE}
    filters = {"label": f"{INSTANCE}={settings.INSTANCE}"}
    _until(lambda: len(docker_client.containers.list(filters=filters)) == 2, "the pair never ran")
    clicked_s = _click(owner, run)
    _cancelled(run, clicked_s)
    deaths_s = _deaths_s(docker_client, clicked_s, mine)
    assert len(deaths_s) == 2
    assert all(0 < died_s - clicked_s < CANCELLED_WITHIN_S for died_s in deaths_s)


def test_while_it_is_built(docker_client: docker.DockerClient, owner: User, begun: Callable[..., Run]) -> None:
    run = begun("well", dockerfile=LONG_BUILD)
    _until(lambda: "\n42" in Run.objects.get(pk=run.pk).build_log, "the build never ran")
    before = _steps(docker_client)
    assert before
    clicked_s = _click(owner, run)
    _cancelled(run, clicked_s)
    assert before.isdisjoint(_steps(docker_client))


def _steps(client: docker.DockerClient) -> set[str]:
    """The containers of this build's steps that run now."""
    running = client.api.containers()
    return {one["Id"] for one in running if "time.sleep(600)" in one["Command"]}
