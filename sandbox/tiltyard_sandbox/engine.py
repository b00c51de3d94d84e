"""Reach the Docker engine, or say clearly why it cannot be reached."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import docker
import requests
from docker.types.daemon import CancellableStream

from tiltyard_sandbox.verdicts import InfraFault

MIN_API_VERSION: Final = (1, 41)  # Docker 20.10: what the sandbox's flags were tried with
CALL_TIMEOUT_S: Final = 60
# What the SDK raises when the engine answers badly, late or not at all.
ENGINE_ERRORS: Final = (docker.errors.DockerException, requests.exceptions.RequestException)
USERNS: Final = "name=userns"  # among the security options of an engine that maps users
_MAPPED_ROOT: Final = re.compile(r"/(\d{1,10})\.(\d{1,10})/?$")
# What a stream's reader sees when the other end, or `EngineStream.cut`, ends it.
STREAM_ENDS: Final = (*ENGINE_ERRORS, OSError, ValueError, AttributeError)


def connect(timeout_s: int = CALL_TIMEOUT_S) -> docker.DockerClient:
    """A client for the engine that `DOCKER_HOST` names (by default the local socket).

    Raises InfraFault when no engine answers, it may not be used, or it is too old.
    """
    try:
        client = docker.from_env(timeout=timeout_s)
        try:
            _require_version(client)
        except BaseException:
            client.close()
            raise
    except ENGINE_ERRORS as error:
        raise InfraFault(_explain(error)) from error
    return client


def _require_version(client: docker.DockerClient) -> None:
    found = client.version()["ApiVersion"]
    if tuple(int(part) for part in found.split(".")) < MIN_API_VERSION:
        wanted = ".".join(map(str, MIN_API_VERSION))
        raise InfraFault(f"The Docker engine is too old (API {found}): install one with API {wanted}.")


def _explain(error: Exception) -> str:
    text = str(error)
    if "Permission denied" in text:
        return "The Docker engine may not be used by this account: run as root or join the group docker."
    if "No such file" in text or "Connection refused" in text:
        return "No Docker engine answers: install and start one (Debian: apt install docker.io), or set DOCKER_HOST."
    return f"The Docker engine cannot be reached: {text[:300]}"


def first_ids(info: Mapping[str, Any]) -> tuple[int, int]:
    """The host's user and group that are root in a container: (0, 0), unless the engine maps users.

    `info` is what `client.info()` gives. An engine that maps users (`userns-remap`) keeps everything below a folder
    named after the two. Raises InfraFault when that cannot be read.
    """
    if USERNS not in (info.get("SecurityOptions") or []):
        return 0, 0
    match = _MAPPED_ROOT.search(str(info.get("DockerRootDir", "")))
    if match is None:
        raise InfraFault("The Docker engine maps users, but its root folder does not say to which: report this.")
    return int(match[1]), int(match[2])


def api_url(client: docker.DockerClient, path: str) -> str:
    """The address of an API path, for the calls and parameters that the SDK does not offer."""
    return f"{client.api.base_url}/v{client.api.api_version}{path}"


class EngineStream:
    """A long answer of the engine, read on one thread, that another may cut off at any time.

    The SDK's own streams can be cut off but not closed: each would leave a socket to the garbage collector.
    """

    def __init__(self, response: requests.Response) -> None:
        self.response = response
        self._cutter = CancellableStream(iter(()), response)

    @classmethod
    def open(cls, client: docker.DockerClient, path: str, params: dict[str, Any]) -> "EngineStream":
        """Begin a GET whose answer goes on; raises one of ENGINE_ERRORS."""
        response = client.api.get(api_url(client, path), params=params, stream=True, timeout=(CALL_TIMEOUT_S, None))
        try:
            response.raise_for_status()
        except requests.exceptions.HTTPError:
            response.close()
            raise
        return cls(response)

    def chunks(self) -> Iterator[bytes]:
        """The answer as it arrives; raises one of STREAM_ENDS when it is cut off."""
        return iter(self.response.iter_content(chunk_size=None))

    def cut(self) -> None:
        """End the reader's waiting. Safe from any thread, more than once."""
        try:
            self._cutter.close()
        except (AttributeError, OSError):
            return  # it has ended in this very moment

    def release(self) -> None:
        """Give the connection back; to be called when the reader is done."""
        self.response.close()


def is_gone(error: docker.errors.APIError) -> bool:
    """Whether an image could not be removed because it is removed: before, or by somebody else at this very moment."""
    return error.status_code == 404 or "unrecognized image id" in str(error.explanation).lower()


def is_disk_full(complaint: str) -> bool:
    """Whether the engine complains of its own disk. Only at the end is the text sure not to be a participant's."""
    return complaint.strip().lower().endswith("no space left on device")


_STORE_FAULT: Final = re.compile(
    r"failed to get digest sha256:[0-9a-f]{64}: open /|layer does not exist|No such image: sha256:[0-9a-f]{64}"
)


def is_store_fault(complaint: str) -> bool:
    """Whether the engine misses a piece of its own store: killed while it wrote, or another took the image away.

    Only at the beginning is the text sure not to be a participant's: what a Dockerfile or a step says comes later.
    """
    return _STORE_FAULT.match(complaint) is not None
