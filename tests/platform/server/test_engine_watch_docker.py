"""An engine of the test's own is stopped and started under a watch; nobody else's containers are on it."""

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
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
