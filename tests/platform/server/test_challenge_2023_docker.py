"""An image with the API of the 2023 challenge, unchanged: through `tiltyard evaluate` and through a worker's run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import challenge_2023_server
import docker
import pytest
from bundles_for_tests import write_bundle
from django.utils import timezone
from uploads_for_tests import context_archive

from tiltyard.accounts.models import User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.submissions.intake import accept_upload
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState
from tiltyard.worker.tasks import execute_run

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

DOCKERFILE = """\
ARG BASE=tiltyard/python:3.11
FROM ${BASE}
COPY server.py /submission/server.py
EXPOSE 80
CMD ["python3", "/submission/server.py"]
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return context_archive(
        tmp_path / "entry.tar.gz",
        dockerfile=DOCKERFILE,
        manifest={"adapter": "neurips2023"},
        files={"server.py": Path(challenge_2023_server.__file__).read_text()},
    )


def test_one_image_both_ways(archive: Path, tmp_path: Path, docker_client: docker.DockerClient) -> None:
    del docker_client  # the engine is there
    bundle = write_bundle(tmp_path / "bundle")
    competition = import_bundle(bundle, secrets_dir=tmp_path / "secrets")
    owner = User.objects.create_user("owner", "owner@example.org", "correct horse battery")
    submission = accept_upload(
        owner=owner,
        competition=competition,
        track=competition.tracks.get(),
        path=_copy(archive),
        filename="entry.tar.gz",
        now=timezone.now(),
    )
    execute_run(str(submission.runs.get().pk))
    run = Run.objects.get()
    assert run.state == RunState.SCORED, run.failure_message + run.server_log

    command = [sys.executable, "-m", "tiltyard.cli", "evaluate", str(archive), "--competition-dir", str(bundle)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    here: dict[str, Any] = json.loads(done.stdout)["suites"][0]
    served = run.suite_results.get(suite__visibility="open")
    tasks = {task.name: task.score for task in served.tasks.all()}
    assert sorted(tasks.values())[-1] == 1.0, "the text was cut at the stop string, so additions are right"
    assert here["score"]["value"] == served.score
    assert here["repro_hash"] == served.repro_hash
    result = json.loads((tmp_path / "out" / "small-open" / "result.json").read_text())
    assert result["adapter"] == "neurips2023"


def _copy(archive: Path) -> Path:
    """Accepting an upload moves its file away."""
    copy = archive.with_name("uploaded.tar.gz")
    copy.write_bytes(archive.read_bytes())
    return copy
