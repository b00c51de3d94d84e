"""Submission images: build or load one, check it, and name its content."""

import json
import re
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import docker

from tiltyard_sandbox import dockerfile
from tiltyard_sandbox.archives import BuildContext, read_upload
from tiltyard_sandbox.build_traces import STAGE_HEAD
from tiltyard_sandbox.builds import run_build, write_context
from tiltyard_sandbox.engine import ENGINE_ERRORS, is_disk_full
from tiltyard_sandbox.guarded import reject, shown
from tiltyard_sandbox.image_archive import ImageArchive, renamed, scan_layers
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.manifest import SubmissionManifest
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, SubmissionFault

LOAD_TIMEOUT_S: Final = 1800
VOLUMES_MAX: Final = 8
_VOLUME_PATH: Final = re.compile(r"(/[A-Za-z0-9._-]+)+/?")
_SYSTEM_PATHS: Final = ("/proc", "/sys", "/dev", "/etc", "/usr", "/bin", "/lib", "/sbin")
_ID_PREFIX: Final = "sha256:"


@dataclass(frozen=True)
class BuiltImage:
    """An image ready to run, and to be removed after it, by a reference that no other run has.

    For a build that is the engine's id, since every build makes an image of its own. The same saved image has one id
    however often it is loaded, so each time it gets a random name.
    """

    image_id: str  # "sha256:…" or "tiltyard-run:…"
    size_bytes: int  # uncompressed
    manifest: SubmissionManifest


def build_image(
    client: docker.DockerClient,
    archive: Path,
    *,
    allowed_bases: Collection[str],
    base_args: Mapping[str, str],
    limits: Limits,
    on_log: Callable[[str], None],
    cancel: threading.Event,
) -> BuiltImage:
    """Build the archive's Dockerfile without network, from none but `allowed_bases`.

    `base_args` are build arguments such as {"BASE": "tiltyard/runtime:cpu"}. The log goes to `on_log` line by line, at
    most `limits.log_bytes` of it. Raises SubmissionFault (build_failed with the log's end, or image_rejected),
    InfraFault (a base image is missing here, the engine failed) or Cancelled, within a second of `cancel`.
    """
    upload = read_upload(archive, unpacked_bytes_max=limits.image_bytes_max)
    if not isinstance(upload, BuildContext):
        raise reject("This is a saved image, not a folder with a Dockerfile.")
    checked = dockerfile.check(upload.dockerfile, allowed_bases=allowed_bases, base_args=base_args)
    _require_bases(client, checked.bases)
    if cancel.is_set():
        raise Cancelled
    with tempfile.TemporaryFile(prefix="tiltyard-context-") as context:
        write_context(archive, upload, checked.rendered(STAGE_HEAD), context, limits.image_bytes_max)
        context.seek(0)
        image_id = run_build(
            client,
            context,
            build_args=base_args,
            labels=upload.manifest.labels(),
            limits=limits,
            on_log=on_log,
            cancel=cancel,
        )
    return _checked(client, image_id, upload.manifest, limits)


def load_image(
    client: docker.DockerClient,
    archive: Path,
    *,
    limits: Limits,
    on_log: Callable[[str], None],
    cancel: threading.Event,
) -> BuiltImage:
    """Load an image archive after a scan of its layers, under a random name in place of its tags.

    Raises SubmissionFault(image_rejected), InfraFault or Cancelled.
    """
    upload = read_upload(archive, unpacked_bytes_max=limits.image_bytes_max)
    if not isinstance(upload, ImageArchive):
        raise reject("This is a folder with a Dockerfile, not a saved image.")
    on_log(f"Scanning {len(upload.layer_paths)} layers")
    scan_layers(archive, upload, limits.image_bytes_max)
    on_log("Loading the image")
    image_id = _load(client, archive, upload, limits, cancel)
    return _checked(client, image_id, upload.manifest, limits)


def _load(
    client: docker.DockerClient, archive: Path, upload: ImageArchive, limits: Limits, cancel: threading.Event
) -> str:
    name = f"tiltyard-run:{uuid4().hex}"

    def stream() -> Any:
        for part in renamed(archive, upload, name, limits.image_bytes_max):
            if cancel.is_set():
                raise Cancelled
            yield part

    api = client.api
    url = f"{api.base_url}/v{api.api_version}/images/load"
    try:
        response = api.post(url, data=stream(), params={"quiet": "1"}, timeout=LOAD_TIMEOUT_S)
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed while it loaded the image: {str(error)[:300]}") from error
    if response.status_code != 200:
        raise _refusal(response.status_code, "The engine cannot load the image", response.text.strip())
    _raise_load_errors(response.text)
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        raise reject("The engine loaded no image from the archive. Save the image again.") from None
    return name


def _raise_load_errors(answer: str) -> None:
    """The engine's answer is one JSON object a line; its errors come with status 200, and quote the archive."""
    for line in answer.splitlines():
        try:
            message = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise InfraFault("The Docker engine's answer to an image cannot be read.")
        if "error" in message or "errorDetail" in message:
            # The engine compares each layer with its checksum, and the archive is the participant's.
            raise _refusal(200, "The engine cannot load the image", str(message.get("error", "")))


def _refusal(status_code: int, what: str, text: str) -> SubmissionFault | InfraFault:
    """Whose fault it is that the engine refuses an image."""
    if status_code >= 500 or is_disk_full(text):
        return InfraFault(f"{what}: {text[-300:]}")
    return reject(f"{what}: {text[-300:]}")


def _require_bases(client: docker.DockerClient, bases: Collection[str]) -> None:
    for base in sorted(bases):
        try:
            client.images.get(base)
        except docker.errors.ImageNotFound:
            raise InfraFault(f"The base image {base} is not on this machine: run scripts/base_images.py.") from None


def _checked(client: docker.DockerClient, image_id: str, manifest: SubmissionManifest, limits: Limits) -> BuiltImage:
    """The image when it keeps the rules; otherwise it is removed. Raises SubmissionFault(image_rejected)."""
    details = client.images.get(image_id).attrs
    try:
        size_bytes = int(details["Size"])
        if size_bytes > limits.image_bytes_max:
            raise reject(f"The image has {size_bytes} bytes; at most {limits.image_bytes_max} are allowed.")
        config = details.get("Config") or {}
        if not config.get("Entrypoint") and not config.get("Cmd"):
            raise reject("The image has neither ENTRYPOINT nor CMD: it does not say how to start the server.")
        volume_paths(config)
    except SubmissionFault:
        remove_image(client, image_id)
        raise
    return BuiltImage(image_id, size_bytes, manifest)


def volume_paths(config: Mapping[str, Any]) -> list[str]:
    """The places that the image's VOLUME lines name; raises SubmissionFault(image_rejected) on unusual ones."""
    paths = sorted(config.get("Volumes") or {})
    if len(paths) > VOLUMES_MAX:
        raise reject(f"The image declares more than {VOLUMES_MAX} volumes.")
    for path in paths:
        has_dots = not {".", ".."}.isdisjoint(path.split("/"))
        if not _VOLUME_PATH.fullmatch(path) or path.startswith(_SYSTEM_PATHS) or has_dots:
            raise reject(f"The image declares a VOLUME at {shown(path)}, which is not allowed. Remove that line.")
    return [path.rstrip("/") for path in paths]


def remove_image(client: docker.DockerClient, image_id: str) -> None:
    """Remove a `BuiltImage`; one that is gone already, or that others still use or have a name for, is no error.

    Raises InfraFault when the engine fails.
    """
    try:
        # By its id, the engine would remove an image with its one name, and that may be somebody else's.
        if not (image_id.startswith(_ID_PREFIX) and client.images.get(image_id).tags):
            client.images.remove(image_id, force=False, noprune=False)
    except docker.errors.ImageNotFound:
        return
    except docker.errors.APIError as error:
        if error.status_code != 409:  # in use
            raise InfraFault(f"The image could not be removed: {error.explanation}") from error
