"""What every test gets: no network beyond this machine, and real services or a clear word that they are missing.

A test that is marked `docker`, `redis` or `browser` runs only beside the real thing. Where that is missing it is
skipped, with the reason; with CI or TILTYARD_REQUIRE_SERVICES set (as `make test` does) it fails instead, so that no
gap passes for a success.
"""

import os
import shutil
from collections.abc import Iterator

import docker
import pytest
import pytest_socket
from django.conf import settings
from services_for_tests import MissingServiceError, chromium_path, docker_engine, private_redis, services_required

# Where there is no GPU, kernels run in Triton's interpreter. Triton asks for it when it is imported, as peft does.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Every worker of a test would else begin by attacking the engine, for ten seconds; the sandbox's own tests do that. The
# variable is for workers that tests start; this process's settings were read before this file.
os.environ.setdefault("TILTYARD_WORKER_SELFCHECK", "0")
settings.WORKER_SELFCHECK = False


def pytest_runtest_setup(item: pytest.Item) -> None:
    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture(scope="session")
def _redis_url() -> Iterator[str]:
    with private_redis() as url:
        yield url


@pytest.fixture(scope="session")
def _docker_client() -> Iterator[docker.DockerClient]:
    client = docker_engine()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _services_are_there(request: pytest.FixtureRequest) -> None:
    """Skip or fail before the test's own fixtures are made."""
    checks = {"docker": "_docker_client", "redis": "_redis_url", "browser": "chromium_executable"}
    for marker, fixture in checks.items():
        if request.node.get_closest_marker(marker) is not None:
            _service(request, fixture)


def _service(request: pytest.FixtureRequest, fixture: str) -> object:
    try:
        return request.getfixturevalue(fixture)
    except MissingServiceError as error:
        if services_required():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture
def docker_client(request: pytest.FixtureRequest) -> docker.DockerClient:
    """A client of a real Docker engine."""
    client = _service(request, "_docker_client")
    assert isinstance(client, docker.DockerClient)
    return client


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """The address of a real Redis that belongs to the tests; its content is nobody's."""
    return str(_service(request, "_redis_url"))


@pytest.fixture(scope="session")
def chromium_executable() -> str:
    """The path of Debian's Chromium (or what TILTYARD_CHROMIUM names)."""
    return chromium_path()
