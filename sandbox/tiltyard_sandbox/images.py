"""Submission images: build or load one, check it, and name its content."""

import json
import re
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import docker

from tiltyard_sandbox import dockerfile
from tiltyard_sandbox.archives import BuildContext, read_upload
from tiltyard_sandbox.build_traces import STAGE_HEAD
from tiltyard_sandbox.builds import run_build, write_context
from tiltyard_sandbox.disk import DiskGauge, require_room
from tiltyard_sandbox.engine import CALL_TIMEOUT_S, ENGINE_ERRORS, is_disk_full, is_gone
from tiltyard_sandbox.guarded import reject, shown
from tiltyard_sandbox.image_archive import ImageArchive, renamed, scan_layers
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.manifest import SubmissionManifest
from tiltyard_sandbox.owners import RUN_TAG, named_by
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
    however often it is loaded, so each time it gets a random name. But not where the engine has it already without any
    name, because it would go with the first name that is taken away: that one is used by its id, and is not ours.
    """

    image_id: str  # "sha256:…" or "tiltyard-run:…"
    size_bytes: int  # uncompressed
    manifest: SubmissionManifest
    is_ours: bool = True  # and goes after the run


def build_image(
    client: docker.DockerClient,
    archive: Path,
    *,
    allowed_bases: Collection[str],
    base_args: Mapping[str, str],
    limits: Limits,
    on_log: Callable[[str], None],
    cancel: threading.Event,
    owner: str,
    gauge_image: str | None,
) -> BuiltImage:
    """Build the archive's Dockerfile without network, from none but `allowed_bases`.

    `base_args` are build arguments such as {"BASE": "tiltyard/runtime:cpu"}. The log goes to `on_log` line by line, at
    most `limits.log_bytes` of it. By `owner` (see `owners`) what a killed build has left is found. The engine's disk is
    watched with `gauge_image` (see `disk`), or not at all. Raises SubmissionFault (build_failed with the log's end, or
    image_rejected), InfraFault (a base image is missing here, the engine failed, its disk is full) or Cancelled, within
    seconds of `cancel`.
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
            owner=owner,
            gauge_image=gauge_image,
        )
    return _checked(client, BuiltImage(image_id, 0, upload.manifest), limits)


def load_image(
    client: docker.DockerClient,
    archive: Path,
    *,
    limits: Limits,
    on_log: Callable[[str], None],
    cancel: threading.Event,
    owner: str,
    gauge_image: str | None,
    manifest: SubmissionManifest | None = None,
) -> BuiltImage:
    """Load an image archive after a scan of its layers, under a random name in place of its tags.

    `owner` and `gauge_image` as in `build_image`; `manifest` stands in for the image's labels.
    Raises SubmissionFault(image_rejected), InfraFault or Cancelled.
    """
    upload = read_upload(archive, unpacked_bytes_max=limits.image_bytes_max, manifest=manifest)
    if not isinstance(upload, ImageArchive):
        raise reject("This is a folder with a Dockerfile, not a saved image.")
    on_log(f"Scanning {len(upload.layer_paths)} layers")
    size_bytes = scan_layers(archive, upload, limits.image_bytes_max)
    if gauge_image is not None:
        with DiskGauge(client, gauge_image, owner=owner, life_s=CALL_TIMEOUT_S) as gauge:
            require_room(gauge.free_bytes(), 2 * size_bytes)  # the engine unpacks the archive before its layers
    on_log("Loading the image")
    is_ours = not _is_there_unnamed(client, upload.image_id)
    name = f"{RUN_TAG}{named_by(owner)}" if is_ours else None
    image_id = _load(client, archive, upload, name=name, limits=limits, cancel=cancel)
    return _checked(client, BuiltImage(image_id, 0, upload.manifest, is_ours), limits)


def _is_there_unnamed(client: docker.DockerClient, image_id: str) -> bool:
    try:
        return not client.images.get(image_id).tags
    except docker.errors.ImageNotFound:
        return False


def _load(
    client: docker.DockerClient,
    archive: Path,
    upload: ImageArchive,
    *,
    name: str | None,
    limits: Limits,
    cancel: threading.Event,
) -> str:
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
    reference = name or upload.image_id
    try:
        client.images.get(reference)
    except docker.errors.ImageNotFound:
        raise reject("The engine loaded no image from the archive. Save the image again.") from None
    return reference


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
            config = client.images.get(base).attrs.get("Config") or {}
        except docker.errors.ImageNotFound:
            raise InfraFault(f"The base image {base} is not on this machine: run scripts/base_images.py.") from None
        # What a step writes below a volume is in no layer, and triggers run before a stage has the build's label.
        for section, name in (("Volumes", "VOLUME"), ("OnBuild", "ONBUILD")):
            if config.get(section):
                raise InfraFault(f"The base image {base} has {name}, which builds cannot be watched with: remove it.")


def _checked(client: docker.DockerClient, image: BuiltImage, limits: Limits) -> BuiltImage:
    """The image with its size when it keeps the rules; otherwise, if ours, it is removed.

    Raises SubmissionFault(image_rejected).
    """
    details = client.images.get(image.image_id).attrs
    try:
        size_bytes = int(details["Size"])
        if size_bytes > limits.image_bytes_max:
            raise reject(f"The image has {size_bytes} bytes; at most {limits.image_bytes_max} are allowed.")
        config = details.get("Config") or {}
        if not config.get("Entrypoint") and not config.get("Cmd"):
            raise reject("The image has neither ENTRYPOINT nor CMD: it does not say how to start the server.")
        volume_paths(config)
    except SubmissionFault:
        if image.is_ours:
            remove_image(client, image.image_id)
        raise
    return replace(image, size_bytes=size_bytes)


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


def remove_image(client: docker.DockerClient, image_id: str) -> bool:
    """Remove an image that is ours, and say whether this call did.

    It is no error when it is gone already, or others still use it or have a name for it. Raises InfraFault when the
    engine fails.
    """
    try:
        # By its id, the engine would remove an image with its one name, and that may be somebody else's.
        if not (image_id.startswith(_ID_PREFIX) and client.images.get(image_id).tags):
            client.images.remove(image_id, force=False, noprune=False)
            return True
    except docker.errors.APIError as error:
        if error.status_code != 409 and not is_gone(error):  # in use, or gone
            raise InfraFault(f"The image could not be removed: {error.explanation}") from error
    return False
