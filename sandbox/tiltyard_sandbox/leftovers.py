"""What a killed process has left in the engine, and what the engine made after it was cut off.

A build ends with its connection, but the engine notices only between two steps: a COPY that is under way goes on, and
its layer appears when everything was tidied up. A loaded image has its random tag, a built one and its steps the label,
until somebody takes them away. Each tells its owner (see `owners`), so whoever knows which owners live can sweep.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import docker

from tiltyard_sandbox.build_traces import FIRST_STEP
from tiltyard_sandbox.containers import ROLE_LABEL
from tiltyard_sandbox.engine import ENGINE_ERRORS
from tiltyard_sandbox.images import remove_image
from tiltyard_sandbox.owners import BUILD_LABEL, GAUGE_LABEL, RUN_TAG, owner_of
from tiltyard_sandbox.verdicts import InfraFault

FIRST_STEP_S: Final = 3600.0  # after which no build waits for its second step any more

_GONE: Final = frozenset({404, 409})


@dataclass(frozen=True)
class Leftover:
    """A container, or an image by its random tag or its id, and all to whom it belongs."""

    reference: str
    is_container: bool
    owners: frozenset[str]


def find_leftovers(client: docker.DockerClient, site: str) -> list[Leftover]:
    """Whatever belongs to owners below `site` ("site.…") and to nobody else; raises InfraFault.

    To sweep, ask for these first and for the living afterwards: what begins in between is then not among them.
    """
    try:
        found = [*_containers(client), *_images(client)]
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error
    return [one for one in found if one.owners and all(owner.startswith(f"{site}.") for owner in one.owners)]


def remove_leftovers(client: docker.DockerClient, leftovers: Iterable[Leftover]) -> int:
    """Remove these, containers first; how many this call removed, those that were gone or in use not counted.

    Images that others use or have a name for stay. Raises InfraFault when the engine fails.
    """
    wanted = sorted(leftovers, key=lambda one: not one.is_container)
    remove = {True: _remove_container, False: remove_image}
    return sum(remove[one.is_container](client, one.reference) for one in wanted)


def remove_first_steps(client: docker.DockerClient, *, older_than_s: float = FIRST_STEP_S) -> int:
    """Remove what builds left that were cut off before they had a label, on this engine; how many containers and
    images that were.

    Nothing tells whose they are, only that no build needs them: it has its label a moment later. Raises InfraFault.
    """
    try:
        containers = [
            container["Id"]
            for container in client.api.containers(all=True)
            if container["State"] == "created"
            and container["Created"] <= time.time() - older_than_s
            and _is_first_step(client, container["Id"])
        ]
        images = [
            image["Id"]
            for image in client.api.images(all=True)
            if not _names(image)
            and not _builders(image.get("Labels") or {})
            and image["Created"] <= time.time() - older_than_s
            and _last_step(client, image["Id"]).endswith(FIRST_STEP)
        ]
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error
    removed = sum(_remove_container(client, container_id) for container_id in containers)
    return removed + sum(remove_image(client, image_id) for image_id in images)


def _is_first_step(client: docker.DockerClient, container_id: str) -> bool:
    """Whether the engine's builder made this container for the step that gives a build its name, and runs nothing."""
    try:
        details = client.api.inspect_container(container_id)
    except docker.errors.NotFound:
        return False
    command = details["Config"]["Cmd"] or [""]
    return str(command[-1]).endswith(FIRST_STEP) and _has_no_log(details)


def _last_step(client: docker.DockerClient, image_id: str) -> str:
    try:
        history = client.api.history(image_id)  # type: ignore[no-untyped-call]
    except docker.errors.NotFound:
        return ""
    return str(history[0].get("CreatedBy") or "") if history else ""


def _names(image: dict[str, Any]) -> list[str]:
    return [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]


def _remove_container(client: docker.DockerClient, container_id: str) -> bool:
    try:
        client.api.remove_container(container_id, force=True, v=True)
    except docker.errors.APIError as error:
        if error.status_code not in _GONE:
            raise InfraFault(f"A leftover container could not be removed: {error.explanation}") from error
        return False
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error
    return True


def _containers(client: docker.DockerClient) -> Iterator[Leftover]:
    for container in client.api.containers(all=True):
        labels = container.get("Labels") or {}
        builders = _builders(labels)
        if builders and _is_step(client, container["Id"]):
            yield Leftover(container["Id"], True, builders)
        elif not builders and labels.get(ROLE_LABEL) == "gauge":
            yield Leftover(container["Id"], True, frozenset({owner_of(labels.get(GAUGE_LABEL, ""))}))


def _is_step(client: docker.DockerClient, container_id: str) -> bool:
    """Whether the engine's builder made this container, which is the one that gives its own no log at all.

    A pair's containers, which are swept by `pair.sweep`, and those that an operator starts from a submission's image
    have the build's label as well, from the image. Other labels say nothing: a base image could have them.
    """
    try:
        details = client.api.inspect_container(container_id)
    except docker.errors.NotFound:
        return False
    return _has_no_log(details)


def _has_no_log(details: dict[str, Any]) -> bool:
    return bool(details["HostConfig"]["LogConfig"]["Type"] == "none")


def _images(client: docker.DockerClient) -> Iterator[Leftover]:
    for image in client.api.images(all=True):
        tags = _names(image)
        for tag in tags:
            if tag.startswith(RUN_TAG):
                yield Leftover(tag, False, frozenset({owner_of(tag.removeprefix(RUN_TAG))}))
        if not tags:
            yield Leftover(image["Id"], False, _builders(image.get("Labels") or {}))


def _builders(labels: dict[str, Any]) -> frozenset[str]:
    """The owners of all builds that the labels name; what is no name that `owners` made names nobody."""
    found = {owner_of(label.removeprefix(BUILD_LABEL)) for label in labels if label.startswith(BUILD_LABEL)}
    return frozenset(found - {""})
