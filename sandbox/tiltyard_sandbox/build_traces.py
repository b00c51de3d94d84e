"""What one build leaves in the engine: its steps' containers and its images, found by a label, measured and removed.

Each stage is given a label with an unguessable name, which the engine's legacy builder hands on to every container and
image that it makes. The build's log names them too, but a step may print whatever it likes.
"""

import time
from typing import Any, Final

import docker

from tiltyard_sandbox.engine import CALL_TIMEOUT_S, api_url
from tiltyard_sandbox.owners import BUILD_LABEL, named_by

_SETTLE_S: Final = 5.0
_POLL_S: Final = 0.1
_GONE: Final = frozenset({404, 409})  # it is gone, going, or (an image) others rest on it

# The name comes as an argument: a file that differed in each build would give each image another digest.
_ARGUMENT: Final = "TILTYARD_BUILD"
FIRST_STEP: Final = f"ARG {_ARGUMENT}"  # what it makes has no label yet
STAGE_HEAD: Final = f"{FIRST_STEP}\nLABEL {BUILD_LABEL}${{{_ARGUMENT}}}=1\n"


class BuildTraces:
    """Everything of one build; the methods raise one of ENGINE_ERRORS."""

    def __init__(self, client: docker.DockerClient, owner: str) -> None:
        self._client = client
        name = named_by(owner)
        self.build_args = {_ARGUMENT: name}  # what STAGE_HEAD needs
        self._label = f"{BUILD_LABEL}{name}"
        self._limited: set[str] = set()
        self._base_bytes: dict[str, int] = {}

    def limit_pids(self, pids: int) -> None:
        """Bound the processes of the step that runs: the builder has no option for it."""
        for container_id in self._containers() - self._limited:
            self._limited.add(container_id)
            url = api_url(self._client, f"/containers/{container_id}/update")
            self._client.api.post(url, json={"PidsLimit": pids}, timeout=10)  # 404: it has ended already

    def written_bytes(self) -> int:
        """What all steps have written so far: the layers of those that ended, and what the running one has."""
        images = {image["Id"]: image for image in self._images()}
        written = 0
        for image in images.values():
            parent = image.get("ParentId") or ""
            below = images[parent]["Size"] if parent in images else self._size_of_base(parent)
            written += max(0, image["Size"] - below)
        return written + sum(self._size_of_container(container_id) for container_id in self._containers())

    def remove_containers(self) -> None:
        """The engine kills the step of a build that was cut off, and may leave its container.

        It removes that container itself once it has made a layer of what the step wrote, should it be about to: with
        its container gone at once, such a layer would come into being after everything was tidied up.
        """
        deadline = time.monotonic() + _SETTLE_S
        while self._containers() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        for container_id in self._containers():
            try:
                self._client.api.remove_container(container_id, force=True, v=True)
            except docker.errors.APIError as error:
                if error.status_code not in _GONE:
                    raise

    def remove_images(self, keep: str | None) -> None:
        """Remove what the build made but for the image `keep` and those that it rests on."""
        for image in self._images():
            if image["Id"] == keep:
                continue
            try:
                self._client.api.remove_image(image["Id"], noprune=False)  # with its ancestors that nobody needs
            except docker.errors.APIError as error:
                if error.status_code not in _GONE:
                    raise

    def _containers(self) -> set[str]:
        found = self._client.api.containers(all=True, filters={"label": self._label})
        return {str(container["Id"]) for container in found}

    def _images(self) -> list[dict[str, Any]]:
        images: list[dict[str, Any]] = self._client.api.images(all=True, filters={"label": self._label})
        return images

    def _size_of_base(self, image_id: str) -> int:
        if image_id and image_id not in self._base_bytes:
            self._base_bytes[image_id] = int(self._client.images.get(image_id).attrs["Size"])
        return self._base_bytes.get(image_id, 0)

    def _size_of_container(self, container_id: str) -> int:
        url = api_url(self._client, f"/containers/{container_id}/json")
        response = self._client.api.get(url, params={"size": "1"}, timeout=CALL_TIMEOUT_S)
        return int(response.json().get("SizeRw") or 0) if response.status_code == 200 else 0
