"""What a hostile upload tries before it runs, in image archives and Dockerfiles; each also given to the bare engine."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from dockerfile_attacks import DOCKERFILE_ATTACKS
from host_as_before import Labels, host_as_before
from image_attacks import IMAGE_ATTACKS
from images_for_tests import Builder
from outside_world import World, gateway_of, service_on

from tiltyard_sandbox import images
from tiltyard_sandbox.owners import BUILD_LABEL

pytestmark = [pytest.mark.docker, pytest.mark.slow]

OWNER = f"outside-test-{uuid.uuid4().hex[:8]}"  # what a killed run has left is not this one's
OUTSIDE = IMAGE_ATTACKS | DOCKERFILE_ATTACKS


def is_ours(labels: Labels) -> bool:
    return labels.get("tiltyard.test") == "outside" or any(name.startswith(f"{BUILD_LABEL}{OWNER}.") for name in labels)


@pytest.fixture(scope="module")
def _host_as_before(client: docker.DockerClient) -> Iterator[None]:
    with host_as_before(client, is_ours):
        yield


@pytest.fixture
def world(_host_as_before: None, builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    builder.owner = OWNER
    builder.gauge_image = None  # tests of their own measure the engine's disk
    with service_on(gateway_of(builder.client)) as (service, visits):
        one = World(builder, tmp_path, monkeypatch, service, visits)
        yield one
    for name in reversed(one.made):
        try:
            one.client.images.remove(name, force=True)
        except docker.errors.ImageNotFound:
            continue  # with the name that was taken away before it
    for image_id in set(builder.made):
        images.remove_image(builder.client, image_id)


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_sandbox_holds(name: str, world: World) -> None:
    OUTSIDE[name].attack(world)


@pytest.mark.parametrize("name", [name for name, one in OUTSIDE.items() if callable(one.control)])
def test_the_bare_engine_does_not(name: str, world: World) -> None:
    control = OUTSIDE[name].control
    assert callable(control)
    control(world)
