"""From a submitted archive to an image that can run, named by its content."""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker

from tiltyard_sandbox.archives import UploadKind, inspect_upload
from tiltyard_sandbox.digests import content_digest
from tiltyard_sandbox.images import build_image, load_image, remove_image
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.manifest import SubmissionManifest
from tiltyard_sandbox.pulls import pull_image
from tiltyard_sandbox.references import named_image
from tiltyard_sandbox.verdicts import InfraFault


@dataclass(frozen=True)
class PreparedImage:
    """An image on this engine, and the digest of its content, which is the same wherever it is built."""

    image_id: str  # what this engine has it by, and no other run: see BuiltImage
    digest: str  # "sha256:…", enters the repro_hash
    manifest: SubmissionManifest
    is_ours: bool  # not when somebody else had it on this engine before, without a name


def prepare_image(
    client: docker.DockerClient,
    archive: Path,
    *,
    allowed_bases: Sequence[str],
    limits: Limits,
    on_log: Callable[[str], None],
    cancel: threading.Event,
    owner: str,
    gauge_image: str,
    digest_cache: Path | None = None,
    registries: Collection[str] = (),
    scratch: Path | None = None,
) -> PreparedImage:
    """Build the archive's Dockerfile, load the image that it is, or fetch the one that it names.

    Args:
        client: The engine.
        archive: `.zip`, `.tar` or `.tar.gz` with a Dockerfile, an image archive, or a `tiltyard.yaml` with an `image`.
        allowed_bases: Images that may stand in a FROM; the first is the default of the build argument BASE.
        limits: Bounds of the archive, the build and the image.
        on_log: Called with each line of the build's log.
        cancel: Stops the build within seconds when set.
        owner: Who prepares it, as in `tiltyard_sandbox.owners`: by this, leftovers are found should this be killed.
        gauge_image: A trusted image with a `python3`, such as the evaluator's, to measure the engine's disk with.
        digest_cache: File in which the digests of base layers are kept between calls.
        registries: Hosts from which a named image may be fetched.
        scratch: Where a fetched image's archive lies meanwhile; by default where temporary files do.

    Raises:
        SubmissionFault: The archive or the build is at fault.
        InfraFault: The engine is.
        Cancelled: `cancel` was set.
    """
    if (named := named_image(archive)) is not None:
        built = pull_image(
            client,
            named,
            registries=registries,
            limits=limits,
            on_log=on_log,
            cancel=cancel,
            owner=owner,
            gauge_image=gauge_image,
            scratch=scratch,
        )
    elif inspect_upload(archive) is UploadKind.IMAGE:
        built = load_image(
            client, archive, limits=limits, on_log=on_log, cancel=cancel, owner=owner, gauge_image=gauge_image
        )
    else:
        built = build_image(
            client,
            archive,
            allowed_bases=allowed_bases,
            base_args={"BASE": allowed_bases[0]},
            limits=limits,
            on_log=on_log,
            cancel=cancel,
            owner=owner,
            gauge_image=gauge_image,
        )
    try:
        digest = content_digest(client, built.image_id, digest_cache)
    except BaseException:  # nobody else knows of the image yet, and it must not fill the disk
        if built.is_ours:
            remove_image(client, built.image_id)
        raise
    return PreparedImage(built.image_id, digest, built.manifest, built.is_ours)


def release_image(client: docker.DockerClient, image: PreparedImage) -> None:
    """Remove a prepared image that is ours when nothing runs it any more; raises InfraFault when the engine fails."""
    if image.is_ours:
        remove_image(client, image.image_id)


def evaluator_digest(client: docker.DockerClient, image: str, digest_cache: Path) -> str:
    """The content digest of the image that asks the questions, by which a manifest names it.

    Its layers, some 700 MB, are read when `digest_cache` does not know them yet, once for each build of the image.
    Raises InfraFault when the engine does not have the image or cannot export it.
    """
    try:
        image_id = str(client.images.get(image).id)
    except docker.errors.ImageNotFound:
        raise InfraFault(f"The evaluator's image {image} is not on this machine.") from None
    return content_digest(client, image_id, digest_cache)
