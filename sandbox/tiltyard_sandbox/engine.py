"""Reach the Docker engine, or say clearly why it cannot be reached."""

import shutil
from typing import Final

import docker
import requests

from tiltyard_sandbox.verdicts import InfraFault

MIN_API_VERSION: Final = (1, 41)  # Docker 20.10: what the sandbox's flags were tried with
CALL_TIMEOUT_S: Final = 60
# What the SDK raises when the engine answers badly, late or not at all.
ENGINE_ERRORS: Final = (docker.errors.DockerException, requests.exceptions.RequestException)


def connect(timeout_s: int = CALL_TIMEOUT_S) -> docker.DockerClient:
    """A client for the engine that `DOCKER_HOST` names (by default the local socket).

    Raises InfraFault when no engine answers, it may not be used, or it is too old.
    """
    try:
        client = docker.from_env(timeout=timeout_s)
        version = client.version()
    except ENGINE_ERRORS as error:
        raise InfraFault(_explain(error)) from error
    api_version = tuple(int(part) for part in version["ApiVersion"].split("."))
    if api_version < MIN_API_VERSION:
        wanted = ".".join(map(str, MIN_API_VERSION))
        raise InfraFault(f"The Docker engine is too old (API {version['ApiVersion']}): install one with API {wanted}.")
    return client


def _explain(error: Exception) -> str:
    text = str(error)
    if "Permission denied" in text:
        return "The Docker engine may not be used by this account: run as root or join the group docker."
    if "No such file" in text or "Connection refused" in text:
        return "No Docker engine answers: install and start one (Debian: apt install docker.io), or set DOCKER_HOST."
    return f"The Docker engine cannot be reached: {text[:300]}"


def disk_free_bytes(client: docker.DockerClient) -> int:
    """Free bytes where the engine keeps its images; 0 when that place cannot be seen from here."""
    root = client.info().get("DockerRootDir", "")
    try:
        return shutil.disk_usage(root).free
    except OSError:
        return 0
