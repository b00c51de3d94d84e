"""From a submitted archive to an image that can run, named by its content."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker

from tiltyard_sandbox.archives import UploadKind, inspect_upload
from tiltyard_sandbox.digests import content_digest
from tiltyard_sandbox.images import build_image, load_image, remove_image
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.manifest import SubmissionManifest


@dataclass(frozen=True)
class PreparedImage:
    """An image on this engine, and the digest of its content, which is the same wherever it is built."""

    image_id: str  # what this engine has it by, and no other run: see BuiltImage
    digest: str  # "sha256:…", enters the repro_hash
    manifest: SubmissionManifest


def prepare_image(
    client: docker.DockerClient,
    archive: Path,
    *,
    allowed_bases: Sequence[str],
    limits: Limits,
    on_log: Callable[[str], None],
    cancel: threading.Event,
    digest_cache: Path | None = None,
) -> PreparedImage:
    """Build the archive's Dockerfile, or load the image that it is.

    Args:
        client: The engine.
        archive: `.zip`, `.tar` or `.tar.gz` with a Dockerfile, or an image archive.
        allowed_bases: Images that may stand in a FROM; the first is the default of the build argument BASE.
        limits: Bounds of the archive, the build and the image.
        on_log: Called with each line of the build's log.
        cancel: Stops the build within seconds when set.
        digest_cache: File in which the digests of base layers are kept between calls.

    Raises:
        SubmissionFault: The archive or the build is at fault.
        InfraFault: The engine is.
        Cancelled: `cancel` was set.
    """
    if inspect_upload(archive) is UploadKind.IMAGE:
        built = load_image(client, archive, limits=limits, on_log=on_log, cancel=cancel)
    else:
        built = build_image(
            client,
            archive,
            allowed_bases=allowed_bases,
            base_args={"BASE": allowed_bases[0]},
            limits=limits,
            on_log=on_log,
            cancel=cancel,
        )
    try:
        digest = content_digest(client, built.image_id, digest_cache)
    except BaseException:  # nobody else knows of the image yet, and it must not fill the disk
        remove_image(client, built.image_id)
        raise
    return PreparedImage(built.image_id, digest, built.manifest)
