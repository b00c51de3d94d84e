"""Images from a real registry by a real engine: fetched by digest, scanned like saved ones, and nothing left behind."""

import dataclasses
import tarfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from images_for_tests import PLAIN, PYTHON_IMAGE, Builder, Pack, context, image_archive
from registry_server import push, registry_server

from tiltyard_sandbox.digests import content_digest
from tiltyard_sandbox.images import BuiltImage, remove_image
from tiltyard_sandbox.manifest import SubmissionManifest
from tiltyard_sandbox.pulls import pull_image
from tiltyard_sandbox.references import ImageReference, NamedImage
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason, SandboxError, SubmissionFault

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry_server(tmp_path_factory.mktemp("registry")) as address:
        yield address


def _named(reference: str) -> NamedImage:
    manifest = SubmissionManifest("named", "none", "none", "Apache-2.0", image=reference)
    return NamedImage(ImageReference.parse(reference), manifest)


def _pull(builder: Builder, reference: str, *, registries: list[str], **changes: Any) -> BuiltImage:
    built = pull_image(
        builder.client,
        _named(reference),
        registries=registries,
        limits=dataclasses.replace(builder.limits, **changes),
        on_log=builder.log.append,
        cancel=builder.cancel,
        owner=builder.owner,
        gauge_image=builder.gauge_image,
    )
    builder.made.append(built.image_id)
    return built


def _pushed(builder: Builder, archive: Path, registry: str) -> str:
    """Of a saved image that nobody has scanned."""
    with archive.open("rb") as file:
        [image] = builder.client.images.load(file)
    reference = push(builder.client, str(image.id), registry, f"tests/{uuid.uuid4().hex}")
    _forget(builder.client, reference, str(image.id))
    return reference


def _forget(client: docker.DockerClient, reference: str, image_id: str) -> None:
    for name in (reference, image_id):
        try:
            client.images.remove(name, force=True)
        except docker.errors.ImageNotFound:
            continue


def _is_there(client: docker.DockerClient, reference: str) -> bool:
    try:
        client.images.get(reference)
    except docker.errors.ImageNotFound:
        return False
    return True


def test_an_image_comes_by_its_digest_and_goes_without_trace(builder: Builder, pack: Pack, registry: str) -> None:
    built = builder.build(pack(context(PLAIN + b'CMD ["true"]\n', x=uuid.uuid4().bytes)))
    digest = content_digest(builder.client, built.image_id)
    reference = push(builder.client, built.image_id, registry, "team/entry")
    _forget(builder.client, reference, built.image_id)
    fetched = _pull(builder, reference, registries=[registry])
    assert fetched.is_ours
    assert fetched.manifest.name == "named"  # as the upload says it, whatever the image's labels say
    assert content_digest(builder.client, fetched.image_id) == digest
    assert not _is_there(builder.client, reference)
    assert any(reference in line for line in builder.log)


def test_what_the_scan_refuses_of_a_saved_image_it_refuses_of_a_named_one(
    builder: Builder, registry: str, tmp_path: Path
) -> None:
    archive = image_archive(tmp_path / "i.tar.gz", ("disk", tarfile.BLKTYPE, ""))
    reference = _pushed(builder, archive, registry)
    with pytest.raises(SubmissionFault, match="device") as caught:
        _pull(builder, reference, registries=[registry])
    assert caught.value.reason == Reason.IMAGE_REJECTED
    assert not _is_there(builder.client, reference)


def test_an_image_that_is_too_large_is_refused(builder: Builder, registry: str, tmp_path: Path) -> None:
    archive = image_archive(tmp_path / "i.tar.gz", ("x", tarfile.REGTYPE, uuid.uuid4().hex * 40_000))
    reference = _pushed(builder, archive, registry)
    with pytest.raises(SubmissionFault, match="bytes") as caught:
        _pull(builder, reference, registries=[registry], image_bytes_max=1 << 20)
    assert caught.value.reason == Reason.IMAGE_REJECTED
    assert not _is_there(builder.client, reference)


def test_other_registries_are_never_asked(builder: Builder, registry: str) -> None:
    digest = "sha256:" + "a" * 64
    for allowed in ([], ["registry.example"]):
        with pytest.raises(SubmissionFault, match="takes no images from"):
            _pull(builder, f"{registry}/team/entry@{digest}", registries=allowed)
    assert builder.log == []


def test_what_is_not_there_is_the_participants_fault_and_a_dead_registry_is_not(
    builder: Builder, registry: str
) -> None:
    digest = "sha256:" + "a" * 64
    with pytest.raises(SubmissionFault, match="make the image public"):
        _pull(builder, f"{registry}/team/none@{digest}", registries=[registry])
    with pytest.raises(InfraFault, match="could not fetch"):
        _pull(builder, f"127.0.0.1:1/team/none@{digest}", registries=["127.0.0.1:1"])


def test_a_fetch_that_is_cancelled_stops(builder: Builder, registry: str, tmp_path: Path) -> None:
    archive = image_archive(tmp_path / "i.tar.gz", ("x", tarfile.REGTYPE, uuid.uuid4().hex))
    reference = _pushed(builder, archive, registry)
    builder.cancel = threading.Event()
    builder.cancel.set()
    with pytest.raises(SandboxError) as caught:
        _pull(builder, reference, registries=[registry])
    assert isinstance(caught.value, Cancelled)
    assert not _is_there(builder.client, reference)
    assert "Loading the image" not in builder.log


def test_an_image_that_the_engine_has_for_others_stays(builder: Builder, registry: str) -> None:
    ours = str(builder.client.images.get(PYTHON_IMAGE).id)
    reference = push(builder.client, ours, registry, "base/python")
    fetched = _pull(builder, reference, registries=[registry])
    assert fetched.image_id != ours
    remove_image(builder.client, fetched.image_id)
    assert str(builder.client.images.get(PYTHON_IMAGE).id) == ours
