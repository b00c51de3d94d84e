"""Files of its own that a killed worker has left on this machine."""

import os
from pathlib import Path

import docker
import pytest
from pytest_django.fixtures import Settings

from tiltyard.worker.strays import sweep_strays

pytestmark = [pytest.mark.docker, pytest.mark.django_db(transaction=True)]


def test_the_copy_of_an_artefact_that_a_killed_worker_left_is_swept(
    docker_client: docker.DockerClient, settings: Settings
) -> None:
    copy = Path(settings.WORK_DIR) / "artefact-of-a-killed-worker"
    copy.touch()
    os.utime(copy, (0, 0))
    sweep_strays(docker_client)
    assert not copy.exists()
