"""What ends under a watch: an engine of the test's own, or no more than a connection, which a proxy has cut."""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest
from cut_connections import cutter
from second_engine import second_engine
from services_for_tests import services_script

from tiltyard.worker.engine_watch import EngineWatch
from tiltyard_sandbox.engine import connect
from tiltyard_sandbox.verdicts import InfraFault

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _collect_sockets() -> Iterator[None]:
    """The SDK leaves a socket that could not connect to the garbage collector, which speaks up: let it do so here."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_an_engine_that_went_away_is_no_submissions_fault(
    docker_client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a second engine")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    services = services_script()
    with services.docker():
        client = connect()
        try:
            with EngineWatch(client) as watch:
                watch.require_undisturbed()
        finally:
            client.close()
        lasting = connect()
        watch = EngineWatch(lasting)
    try:
        with watch:
            with pytest.raises(InfraFault):
                watch.require_undisturbed()
            with services.docker():  # another one at the same place answers, and knows nothing of the container
                with pytest.raises(InfraFault, match="restarted"):
                    watch.require_undisturbed()
                connect().close()
    finally:
        lasting.close()
    assert docker_client.ping()


def _until_cut(watch: EngineWatch) -> None:
    assert watch._is_over.wait(30), "the watch did not notice"


def test_a_connection_that_a_proxy_cuts_is_no_restart(
    docker_client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream on which nothing is ever said is what an idle timeout ends first; a verdict must not hang on it."""
    with cutter("/var/run/docker.sock", socket_path=tmp_path / "proxy.sock") as way:
        monkeypatch.setenv("DOCKER_HOST", way.url)
        with closing(connect()) as client, EngineWatch(client) as watch:
            watch.require_undisturbed()
            assert way.cut("/events") == 1
            _until_cut(watch)
            watch.require_undisturbed()
    with pytest.raises(InfraFault):  # and a proxy that is gone is an engine that is gone
        watch.require_undisturbed()


def test_an_engine_without_its_usual_network_is_known_by_the_end_of_the_stream(
    docker_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with second_engine("--bridge", "none") as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url)
        with engine.running():
            lasting = connect()
            watch = EngineWatch(lasting)
            watch.require_undisturbed()
        try:
            with watch, engine.running():
                _until_cut(watch)
                with pytest.raises(InfraFault, match="restarted"):
                    watch.require_undisturbed()
                with closing(connect()) as client, EngineWatch(client) as fresh:
                    fresh.require_undisturbed()
        finally:
            lasting.close()
