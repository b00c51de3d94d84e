"""Two checkouts on one engine: each worker runs the evaluator of its own files, or none."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from own_images import make_own_images
from pytest_django.fixtures import Settings

from tiltyard.evaluation import own_evaluator_image
from tiltyard.evaluation.evaluator_image import own_tag
from tiltyard.worker.fitness import Unfit, fit_machine
from tiltyard_eval import source
from tiltyard_eval.source import SOURCE_LABEL, source_sha256
from tiltyard_sandbox.verdicts import InfraFault

pytestmark = pytest.mark.docker
OTHER = "tiltyard-test/evaluator-of-another-checkout:1"


@pytest.fixture
def other(docker_client: docker.DockerClient) -> Iterator[str]:
    """An image under a name of its own, as another checkout would have put it under ours."""
    make_own_images()
    docker_client.images.get("tiltyard/python:3.11").tag(OTHER)
    yield OTHER
    docker_client.images.remove(OTHER)


def test_the_configured_image_is_used_when_it_is_ones_own(docker_client: docker.DockerClient, other: str) -> None:
    image = docker_client.images.get(own_evaluator_image(docker_client, own_tag()))
    assert image.labels[SOURCE_LABEL] == source_sha256()


def test_when_another_checkout_has_the_name_ones_own_tag_is_used(
    docker_client: docker.DockerClient, other: str
) -> None:
    assert own_evaluator_image(docker_client, other) == docker_client.images.get(own_tag()).id


def test_without_an_image_of_ones_own_the_worker_says_what_to_do(
    docker_client: docker.DockerClient, other: str, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr("tiltyard.evaluation.evaluator_image.source_sha256", lambda: "0" * 64)
    with pytest.raises(InfraFault, match=f"{other} holds another version of the evaluator .*make images"):
        own_evaluator_image(docker_client, other)
    with pytest.raises(InfraFault, match="absent:1 is not on this machine"):
        own_evaluator_image(docker_client, "tiltyard-test/absent:1")
    settings.EVALUATOR_IMAGE = other
    with pytest.raises(Unfit, match="make images"), fit_machine():
        pytest.fail("it was used")


def test_the_hash_tells_every_change_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_FOLDER", tmp_path)
    seen = set()
    for name, content in [("a.py", "x"), ("a.py", "y"), ("b.yaml", ""), ("__pycache__/a.pyc", "ignored")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        source_sha256.cache_clear()
        seen.add(source_sha256())
    source_sha256.cache_clear()
    assert len(seen) == 3
