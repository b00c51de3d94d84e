"""Submission images: build or load one, and name its content. (Being filled in.)"""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker

from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.manifest import SubmissionManifest


@dataclass(frozen=True)
class BuiltImage:
    """An image ready to run, addressed by the engine's id and by nothing else."""

    image_id: str  # "sha256:…"
    size_bytes: int  # uncompressed
    manifest: SubmissionManifest


def build_image(
    client: docker.DockerClient,
    archive: Path,
    *,
    allowed_bases: Collection[str],
    base_args: Mapping[str, str],
    limits: Limits,
    labels: Mapping[str, str],
    on_log: Callable[[str], None],
    cancel: threading.Event,
) -> BuiltImage:
    """Build the archive's Dockerfile without network. Raises SubmissionFault, InfraFault or Cancelled."""
    raise NotImplementedError


def load_image(
    client: docker.DockerClient,
    archive: Path,
    *,
    limits: Limits,
    on_log: Callable[[str], None],
    cancel: threading.Event,
) -> BuiltImage:
    """Load an image archive, its tags stripped. Raises SubmissionFault, InfraFault or Cancelled."""
    raise NotImplementedError


def content_digest(client: docker.DockerClient, image_id: str, cache_file: Path | None = None) -> str:
    """ "sha256:…" over the image's configuration and content, without time stamps."""
    raise NotImplementedError


def remove_image(client: docker.DockerClient, image_id: str) -> None:
    """Remove an image that no container uses; one that is gone already is no error."""
    raise NotImplementedError
