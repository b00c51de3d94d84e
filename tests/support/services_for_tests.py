"""Find or start the real services that tests use."""

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import docker

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
_SETUP_HINT = "run `make setup`, and the tests with `make test`"


class MissingServiceError(Exception):
    """A service that a test needs is not to be had on this machine."""


def services_required() -> bool:
    """Whether a missing service is a failure rather than a reason to skip."""
    return bool(os.environ.get("CI") or os.environ.get("TILTYARD_REQUIRE_SERVICES"))


def docker_engine() -> docker.DockerClient:
    """A client of the Docker engine at the usual address."""
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except docker.errors.DockerException as error:
        raise MissingServiceError(f"no Docker engine answers ({error}): {_SETUP_HINT}") from error
    return client


@contextlib.contextmanager
def private_redis() -> Iterator[str]:
    """The Redis that `make test` started, or else one for this test session."""
    if url := os.environ.get("TILTYARD_REDIS_URL"):
        yield url
        return
    services = services_script()
    try:
        services.find_program("redis-server")
    except services.ServiceError as error:
        raise MissingServiceError(f"{error} ({_SETUP_HINT})") from error
    with services.redis() as environment:
        yield environment["TILTYARD_REDIS_URL"]


def chromium_path() -> str:
    """Where Chromium is."""
    wanted = os.environ.get("TILTYARD_CHROMIUM", "chromium")
    found = shutil.which(wanted)
    if found is None:
        raise MissingServiceError(f"there is no {wanted}: {_SETUP_HINT}")
    return found


def services_script() -> ModuleType:
    name = "tiltyardservices_script"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, REPOSITORY_DIR / "scripts" / "services.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
