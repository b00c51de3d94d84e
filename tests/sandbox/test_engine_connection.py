"""Reaching the engine, or saying why not."""

import gc
import warnings
from pathlib import Path

import pytest

from tiltyard_sandbox import engine
from tiltyard_sandbox.verdicts import InfraFault


def test_an_engine_that_is_not_there_is_told_how_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    with pytest.raises(InfraFault, match="install and start one") as caught:
        engine.connect()
    with warnings.catch_warnings():
        # The SDK leaves the socket that could not connect to the garbage collector, which speaks up: let it do so here.
        warnings.simplefilter("ignore", ResourceWarning)
        del caught
        gc.collect()


@pytest.mark.docker
def test_an_engine_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MIN_API_VERSION", (99, 0))
    with pytest.raises(InfraFault, match=r"too old .* install one with API 99\.0"):
        engine.connect()


@pytest.mark.docker
def test_the_engine_answers() -> None:
    client = engine.connect()
    try:
        assert client.ping()
    finally:
        client.close()


def test_the_users_that_an_engine_maps_are_read_from_its_root() -> None:
    assert engine.first_ids(
        {"SecurityOptions": ["name=seccomp,profile=default"], "DockerRootDir": "/var/lib/docker"}
    ) == (0, 0)
    mapped = {"SecurityOptions": ["name=userns"], "DockerRootDir": "/var/lib/docker/165536.231072"}
    assert engine.first_ids(mapped) == (165536, 231072)
    with pytest.raises(InfraFault, match="does not say to which"):
        engine.first_ids(mapped | {"DockerRootDir": "/var/lib/docker"})
