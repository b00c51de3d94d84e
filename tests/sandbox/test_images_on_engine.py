"""Loading on a real engine: nothing is trusted, content has one name, and nobody else's image is touched."""

import functools
import io
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest
from images_for_tests import PLAIN, PYTHON_IMAGE, Builder, Pack, context, image_archive

from tiltyard_sandbox import digests, images
from tiltyard_sandbox.digests import content_digest
from tiltyard_sandbox.layers import layer_digests
from tiltyard_sandbox.limits import MIB
from tiltyard_sandbox.verdicts import InfraFault, Reason, SubmissionFault

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="session")
def layer_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One memory of layers for all tests, so that the base is hashed once."""
    return tmp_path_factory.mktemp("digests") / "layers.json"


def test_the_same_archive_built_twice_has_one_digest_and_two_ids(
    builder: Builder, pack: Pack, tmp_path: Path, layer_cache: Path
) -> None:
    files = context(PLAIN + b"RUN mkdir /made && echo x > /made/y\n", data=b"the same")
    first = builder.build(pack(files))
    first_digest = content_digest(builder.client, first.image_id, layer_cache)
    builder.client.images.remove(first.image_id)  # with its cached steps: the second build is a new one
    zipped = tmp_path / "again.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"folder/{name}", content)
    second = builder.build(zipped)
    other = builder.build(pack({**files, "data": b"another"}))
    assert second.image_id != first.image_id
    assert content_digest(builder.client, second.image_id, layer_cache) == first_digest
    assert content_digest(builder.client, other.image_id, layer_cache) != first_digest
    assert content_digest(builder.client, second.image_id) == first_digest  # and without the cache


def test_of_a_known_base_no_layer_is_hashed_again(
    builder: Builder, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "layers.json"
    hashed: list[str] = []

    def counted(*arguments: Any) -> tuple[str, str]:
        diff_id, digest = layer_digests(*arguments)
        hashed.append(diff_id)
        return diff_id, digest

    monkeypatch.setattr(digests, "layer_digests", counted)
    one, another = (builder.build(pack(context(PLAIN, x=content))) for content in (b"one", b"another"))
    content_digest(builder.client, one.image_id, memory)
    base_and_own = len(hashed)
    assert base_and_own > 1
    digest = content_digest(builder.client, another.image_id, memory)
    assert len(hashed) == base_and_own + 1
    assert digest == content_digest(builder.client, another.image_id)  # and as without a memory
    before = len(hashed)
    content_digest(builder.client, another.image_id, memory)
    assert len(hashed) == before
    monkeypatch.setattr(digests, "_REMEMBERED_MAX", 1)
    content_digest(builder.client, builder.build(pack(context(PLAIN, x=b"third"))).image_id, memory)
    assert content_digest(builder.client, another.image_id, memory) == digest  # what was forgotten is read again


def test_a_saved_image_keeps_its_digest(builder: Builder, pack: Pack, tmp_path: Path, layer_cache: Path) -> None:
    built = builder.build(pack(context(PLAIN, x=b"saved")))
    digest = content_digest(builder.client, built.image_id, layer_cache)
    saved = tmp_path / "image.tar"
    with saved.open("wb") as file:
        for part in builder.client.api.get_image(built.image_id):
            file.write(part)
    builder.client.images.remove(built.image_id)
    loaded = builder.load(saved)
    assert loaded.manifest == built.manifest
    assert content_digest(builder.client, loaded.image_id, layer_cache) == digest


def test_a_tag_inside_an_archive_does_not_replace_ours(builder: Builder, tmp_path: Path) -> None:
    ours = builder.client.images.get(PYTHON_IMAGE).id
    archive = image_archive(tmp_path / "i.tar.gz", ("x", tarfile.REGTYPE, "hijack"), tags=[PYTHON_IMAGE])
    loaded = builder.load(archive)
    found = builder.client.images.get(loaded.image_id)
    assert builder.client.images.get(PYTHON_IMAGE).id == ours != found.id
    assert found.tags == [loaded.image_id]


def test_an_image_that_two_runs_load_stays_until_both_are_over(builder: Builder, tmp_path: Path) -> None:
    archive = image_archive(tmp_path / "i.tar.gz", ("x", tarfile.REGTYPE, uuid.uuid4().hex))
    first, second = builder.load(archive), builder.load(archive)
    image_id = builder.client.images.get(first.image_id).id
    images.remove_image(builder.client, first.image_id)
    assert builder.client.images.get(second.image_id).id == image_id
    images.remove_image(builder.client, second.image_id)
    with pytest.raises(docker.errors.ImageNotFound):
        builder.client.images.get(image_id)


@pytest.fixture
def own_image(builder: Builder, tmp_path: Path) -> Iterator[Callable[..., tuple[str, Path]]]:
    """An image that somebody has on the engine by its id, without a name; and the same as an archive."""
    kept = []

    def make(**config: object) -> tuple[str, Path]:
        archive = image_archive(tmp_path / "own.tar.gz", ("x", tarfile.REGTYPE, uuid.uuid4().hex), config=config)
        with archive.open("rb") as file:
            (image,) = builder.client.images.load(file)
        assert image.tags == []
        kept.append(image.id)
        return image.id, archive

    yield make
    for image_id in kept:
        builder.client.images.remove(image_id)


def test_an_image_that_was_there_without_a_name_is_not_ours(builder: Builder, own_image: Callable[..., Any]) -> None:
    image_id, archive = own_image()
    loaded = builder.load(archive)
    builder.made.clear()
    assert (loaded.image_id, loaded.is_ours) == (image_id, False)
    assert builder.client.images.get(image_id).tags == []


def test_an_image_that_was_there_stays_when_it_is_rejected(builder: Builder, own_image: Callable[..., Any]) -> None:
    image_id, archive = own_image(Cmd=None)
    with pytest.raises(SubmissionFault, match="neither ENTRYPOINT nor CMD"):
        builder.load(archive)
    assert builder.client.images.get(image_id)


def test_the_same_tag_does_replace_one_when_the_engine_loads_it_as_it_is(builder: Builder, tmp_path: Path) -> None:
    """The control: without the rewriting, the attack works."""
    tag = "tiltyard-test/victim:1"
    builder.client.images.get(PYTHON_IMAGE).tag(tag)
    victim = builder.client.images.get(tag).id
    archive = image_archive(tmp_path / "i.tar.gz", ("x", tarfile.REGTYPE, "control"), tags=[tag])
    with archive.open("rb") as file:
        (loaded,) = builder.client.images.load(file)
    builder.made.append(loaded.id)
    try:
        assert builder.client.images.get(tag).id == loaded.id != victim
    finally:
        builder.client.images.remove(tag)


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (("srv/sda", tarfile.BLKTYPE, ""), "holds a device"),
        (("development", tarfile.CHRTYPE, ""), "holds a device"),
        (("../x", tarfile.REGTYPE, "x"), "path that leaves it"),
        (("/abs", tarfile.REGTYPE, "x"), "path that leaves it"),
        (("h", tarfile.LNKTYPE, "../../etc/passwd"), "path that leaves it"),
    ],
)
def test_layers_are_scanned(builder: Builder, tmp_path: Path, member: tuple[str, bytes, str], says: str) -> None:
    with pytest.raises(SubmissionFault, match=says) as caught:
        builder.load(image_archive(tmp_path / "i.tar.gz", member))
    assert caught.value.reason is Reason.IMAGE_REJECTED


def test_an_image_bomb_is_stopped_before_the_engine_sees_it(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = image_archive(tmp_path / "i.tar.gz", ("big", tarfile.REGTYPE, "\0" * (40 * MIB)))
    assert archive.stat().st_size < MIB
    monkeypatch.setattr(builder.client.api, "send", lambda *_, **__: pytest.fail("the engine was asked"))
    with pytest.raises(SubmissionFault, match="holds more than"):
        builder.load(archive, image_bytes_max=32 * MIB)


def test_an_image_that_the_disk_has_no_room_for_is_not_loaded(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiltyard_sandbox.disk.ROOM_BYTES_MIN", 1 << 60)
    monkeypatch.setattr("tiltyard_sandbox.images._load", lambda *_, **__: pytest.fail("the engine was asked"))
    with pytest.raises(InfraFault, match="make room there"):
        builder.load(image_archive(tmp_path / "i.tar.gz", ("x", tarfile.REGTYPE, "x")))


def test_an_image_without_labels_is_told_what_to_add(builder: Builder, tmp_path: Path) -> None:
    with pytest.raises(SubmissionFault, match="no label tiltyard"):
        builder.load(image_archive(tmp_path / "i.tar.gz", ("x", tarfile.REGTYPE, "x"), labels=False))


def test_a_layer_that_is_not_what_its_checksum_says_is_rejected(builder: Builder, tmp_path: Path) -> None:
    good = image_archive(tmp_path / "i.tar.gz", ("x", tarfile.REGTYPE, "original"))
    broken = tmp_path / "broken.tar"
    with tarfile.open(good) as source, tarfile.open(broken, "w") as out:
        for info in source:
            file = source.extractfile(info)
            assert file is not None
            out.addfile(info, io.BytesIO(file.read().replace(b"original", b"replaced")))
    with pytest.raises(SubmissionFault, match="cannot load"):
        builder.load(broken)


def test_an_image_is_removed_once_nobody_else_has_a_name_for_it(builder: Builder, pack: Pack) -> None:
    built = builder.build(pack(context(PLAIN, x=uuid.uuid4().bytes)))
    name = f"tiltyard-test:{uuid.uuid4().hex}"
    builder.client.images.get(built.image_id).tag(name)
    images.remove_image(builder.client, built.image_id)
    assert builder.client.images.get(name).id == built.image_id
    builder.client.images.remove(name)
    images.remove_image(builder.client, built.image_id)
    assert built.image_id not in {image.id for image in builder.client.images.list()}


def test_runs_that_give_one_image_up_at_once_all_may(builder: Builder, tmp_path: Path) -> None:
    """The engine fails where two take its last names away in the same moment: the image is gone, as both wanted."""
    gone = 0
    for number in range(6):
        member = (f"x{number}", tarfile.REGTYPE, uuid.uuid4().hex)
        archive = image_archive(tmp_path / "i.tar.gz", member)
        names = [builder.load(archive).image_id for _ in range(6)]
        image_id = builder.client.images.get(names[0]).id
        with ThreadPoolExecutor(len(names)) as pool:
            gone += sum(pool.map(functools.partial(images.remove_image, builder.client), names))
        with pytest.raises(docker.errors.ImageNotFound):
            builder.client.images.get(image_id)
    assert gone > 0
