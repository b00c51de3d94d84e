"""Whole runs whose engine is behind a proxy that cuts what idles: each ends as it would without."""

import threading
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from bundles_for_tests import write_bundle
from cut_connections import Cutter, cutter
from django.conf import settings
from own_images import make_own_images
from tiny_entries import hand_in

from tiltyard.accounts.models import User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import FailureReason, RunState
from tiltyard.worker.strays import INSTANCE
from tiltyard.worker.tasks import execute_run

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def way(docker_client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cutter]:
    """A proxy that cuts every stream of events and logs, again and again."""
    make_own_images()
    is_over = threading.Event()
    with cutter("/var/run/docker.sock", socket_path=tmp_path / "proxy.sock") as made:

        def cut_again_and_again() -> None:
            while not is_over.wait(1.0):
                made.cut("/events")
                made.cut("/logs")

        monkeypatch.setenv("DOCKER_HOST", made.url)
        thread = threading.Thread(target=cut_again_and_again)
        thread.start()
        yield made
        is_over.set()
        thread.join()
    mine = {"label": f"{INSTANCE}={settings.INSTANCE}"}
    assert docker_client.containers.list(all=True, filters=mine) == []


def _ended(tmp_path: Path, mode: str) -> Run:
    competition = import_bundle(write_bundle(tmp_path / "bundle"), secrets_dir=tmp_path / "secrets")
    owner = User.objects.create_user("owner", "owner@example.org", "correct horse battery")
    run = hand_in(competition, owner, tmp_path, mode)
    execute_run(str(run.pk))
    run.refresh_from_db()
    return run


def test_a_good_submission_is_scored(way: Cutter, tmp_path: Path) -> None:
    run = _ended(tmp_path, "well")
    assert (run.state, run.faults) == (RunState.SCORED, 0), run.failure_message
    assert way.cuts > 5
    assert (run.items_done, run.items_total) == (16, 16)
    assert run.server_log.count("listening, mode well") == 1


def test_a_crash_stays_the_submissions(way: Cutter, tmp_path: Path) -> None:
    """The cut streams are no sign of an engine that went away, for which the run would be tried again."""
    run = _ended(tmp_path, "crash")
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.CRASHED)
    assert (run.attempt, run.faults) == (1, 0)
    assert way.cuts > 5
    assert "status 3" in run.failure_message
    assert "now I crash" in run.failure_message
