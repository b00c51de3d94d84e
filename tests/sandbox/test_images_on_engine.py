"""Building and loading on a real engine: nothing is pulled, nothing is trusted, and content has one name."""

import dataclasses
import hashlib
import io
import json
import tarfile
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tiltyard_sandbox import images
from tiltyard_sandbox.digests import content_digest
from tiltyard_sandbox.images import BuiltImage
from tiltyard_sandbox.limits import MIB, Limits
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason, SubmissionFault

pytestmark = [pytest.mark.docker, pytest.mark.slow]

PYTHON_IMAGE = "tiltyard/python:3.11"
MANIFEST = b"name: probe\nbase_model: none\ntraining_data: none\nlicence: Apache-2.0\n"
PLAIN = b"FROM tiltyard/python:3.11\nCOPY . /app\n"

Pack = Callable[..., Path]


class Builder:
    """Builds and loads with a test's limits, keeps the log, and removes every image at the end."""

    def __init__(self, client: docker.DockerClient, limits: Limits) -> None:
        self.client = client
        self.limits = limits
        self.log: list[str] = []
        self.cancel = threading.Event()
        self.made: list[str] = []

    def build(self, archive: Path, **changes: Any) -> BuiltImage:
        built = images.build_image(
            self.client,
            archive,
            allowed_bases=[PYTHON_IMAGE],
            base_args={},
            limits=dataclasses.replace(self.limits, **changes),
            on_log=self.log.append,
            cancel=self.cancel,
        )
        self.made.append(built.image_id)
        return built

    def load(self, archive: Path, **changes: Any) -> BuiltImage:
        built = images.load_image(
            self.client,
            archive,
            limits=dataclasses.replace(self.limits, **changes),
            on_log=self.log.append,
            cancel=self.cancel,
        )
        self.made.append(built.image_id)
        return built


@pytest.fixture
def builder(client: docker.DockerClient, limits: Limits) -> Iterator[Builder]:
    one = Builder(client, limits)
    yield one
    for image_id in set(one.made):
        images.remove_image(client, image_id)


def context(dockerfile: bytes, **files: bytes) -> dict[str, bytes]:
    return {"Dockerfile": dockerfile, "tiltyard.yaml": MANIFEST, **files}


@pytest.fixture(scope="session")
def layer_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One memory of layers for all tests, so that the base is hashed once."""
    return tmp_path_factory.mktemp("digests") / "layers.json"


def test_a_build_makes_an_image_with_the_manifest_as_labels(builder: Builder, pack: Pack) -> None:
    built = builder.build(pack(context(PLAIN + b"RUN echo built by $(id -u)\n", x=b"1")))
    image = builder.client.images.get(built.image_id)
    assert image.labels["tiltyard.name"] == "probe"
    assert image.tags == []
    assert built.manifest.licence == "Apache-2.0"
    assert "built by 0" in builder.log


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


def test_a_failing_build_shows_the_end_of_its_log(builder: Builder, pack: Pack) -> None:
    dockerfile = b"FROM tiltyard/python:3.11\nRUN echo first && python3 -c 'import no_such_module'\n"
    with pytest.raises(SubmissionFault) as caught:
        builder.build(pack(context(dockerfile)))
    assert caught.value.reason is Reason.BUILD_FAILED
    assert "No module named 'no_such_module'" in caught.value.message
    assert "returned a non-zero code: 1" in caught.value.message


def test_a_foreign_base_is_refused_before_the_engine_is_asked(
    builder: Builder, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the engine was asked")

    monkeypatch.setattr(builder.client.api, "send", refuse)
    for line in (b"FROM alpine", b"FROM tiltyard/python:3.11\nCOPY --from=alpine / /"):
        with pytest.raises(SubmissionFault, match="'alpine' is not one of the competition's"):
            builder.build(pack(context(line)))


def test_a_base_that_is_missing_here_is_ours(client: docker.DockerClient, pack: Pack, limits: Limits) -> None:
    with pytest.raises(InfraFault, match="tiltyard/absent:1 is not on this machine"):
        images.build_image(
            client,
            pack(context(b"FROM tiltyard/absent:1\n")),
            allowed_bases=["tiltyard/absent:1"],
            base_args={},
            limits=limits,
            on_log=print,
            cancel=threading.Event(),
        )


def test_a_build_has_no_network(builder: Builder, pack: Pack) -> None:
    code = b"import socket; print([name for _, name in socket.if_nameindex()])"
    builder.build(pack(context(b"FROM tiltyard/python:3.11\nRUN python3 -c '" + code + b"'\n")))
    assert "['lo']" in builder.log


def test_a_build_is_stopped_at_its_deadline(builder: Builder, pack: Pack) -> None:
    begin = time.monotonic()
    with pytest.raises(SubmissionFault, match="longer than 3 s"):
        builder.build(pack(context(b"FROM tiltyard/python:3.11\nRUN echo deadline; sleep 600\n")), build_s=3.0)
    assert time.monotonic() - begin < 30
    assert_no_container_runs(builder.client, "echo deadline")


def test_a_cancelled_build_stops(builder: Builder, pack: Pack) -> None:
    timer = threading.Timer(2.0, builder.cancel.set)
    timer.start()
    with pytest.raises(Cancelled):
        builder.build(pack(context(b"FROM tiltyard/python:3.11\nRUN echo cancelled; sleep 600\n")))
    assert_no_container_runs(builder.client, "echo cancelled")


def assert_no_container_runs(client: docker.DockerClient, command: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        running = client.containers.list(ignore_removed=True)
        commands = [" ".join(one.attrs["Config"]["Cmd"] or []) for one in running]
        if not any(command in text for text in commands):
            return
        time.sleep(0.2)
    pytest.fail(f"a container still runs {command!r}")


def test_a_fork_bomb_in_a_build_is_bounded(builder: Builder, pack: Pack) -> None:
    bomb = (
        b"import os,time\ntime.sleep(2)\nmade=0\ntry:\n while made<2000:\n"
        b"  if os.fork()==0: time.sleep(5);os._exit(0)\n"
        b"  made+=1\nexcept OSError: pass\nprint('forked',made)\n"
    )
    builder.build(pack(context(b"FROM tiltyard/python:3.11\nCOPY b /b\nRUN python3 /b\n", b=bomb)))
    made = next(int(line.split()[1]) for line in builder.log if line.startswith("forked"))
    assert made < builder.limits.pids


def test_the_build_log_is_capped_and_clean(builder: Builder, pack: Pack) -> None:
    code = b"import sys; print(chr(27) + '[2Jcleared'); [print('x' * 99) for _ in range(5000)]"
    dockerfile = b'FROM tiltyard/python:3.11\nRUN python3 -c "' + code + b'"\n'
    builder.build(pack(context(dockerfile)))
    assert sum(map(len, builder.log)) < builder.limits.log_bytes + 200
    assert not any("\x1b" in line for line in builder.log)
    assert any("the rest is left out" in line for line in builder.log)


def test_an_image_over_the_size_limit_is_rejected_and_removed(builder: Builder, pack: Pack) -> None:
    before = {image.id for image in builder.client.images.list()}
    with pytest.raises(SubmissionFault, match="at most 33554432 are allowed"):
        builder.build(pack(context(PLAIN, x=b"too large")), image_bytes_max=32 * MIB)
    assert {image.id for image in builder.client.images.list()} <= before


def test_a_build_that_fills_the_disk_is_stopped(builder: Builder, pack: Pack) -> None:
    dockerfile = b"FROM tiltyard/python:3.11\nRUN echo filling; dd if=/dev/zero of=/x bs=1M count=180; rm /x; "
    fill = b"for i in $(seq 9); do dd if=/dev/zero of=/x$i bs=1M count=180; done; sleep 600\n"
    with pytest.raises(SubmissionFault, match="wrote more than an image may hold"):
        builder.build(pack(context(dockerfile + fill)), image_bytes_max=200 * MIB)
    assert_no_container_runs(builder.client, "echo filling")


def test_a_step_that_names_another_container_is_measured_all_the_same(builder: Builder, pack: Pack) -> None:
    dockerfile = b"FROM tiltyard/python:3.11\nRUN printf ' ---> Running in 000000000000\\n'; sleep 1; "
    fill = (
        b"printf ' ---> Running in 000000000001\\n'; for i in 1 2; do dd if=/dev/zero of=/x$i bs=1M count=120; done; "
    )
    with pytest.raises(SubmissionFault, match="wrote more than an image may hold"):
        builder.build(pack(context(dockerfile + fill + b"sleep 600\n")), image_bytes_max=200 * MIB)


def test_what_several_steps_write_is_summed(builder: Builder, pack: Pack) -> None:
    mark = uuid.uuid4().hex
    step = b"RUN dd if=/dev/zero of=/x bs=1M count=90; sync\nRUN rm /x; sleep 2\n"
    dockerfile = f"FROM tiltyard/python:3.11\nLABEL {mark}=1\n".encode() + 3 * step
    with pytest.raises(SubmissionFault, match="wrote more than an image may hold"):
        builder.build(pack(context(dockerfile)), image_bytes_max=200 * MIB)
    assert images_with(builder.client, mark) == []


def images_with(client: docker.DockerClient, label: str) -> list[Any]:
    return list(client.api.images(all=True, filters={"label": label}))


@pytest.mark.parametrize("last", [b"RUN false\n", b"RUN sleep 600\n"], ids=["failed", "cut off"])
def test_a_build_that_fails_leaves_no_layers(builder: Builder, pack: Pack, last: bytes) -> None:
    mark = uuid.uuid4().hex
    dockerfile = f"FROM tiltyard/python:3.11 AS a\nLABEL {mark}=1\nRUN echo x > /x\nFROM a\nCOPY --from=0 /x /y\n"
    with pytest.raises(SubmissionFault):
        builder.build(pack(context(dockerfile.encode() + last)), build_s=5.0)
    assert images_with(builder.client, mark) == []


def test_a_build_leaves_its_image_and_no_other_stage(builder: Builder, pack: Pack) -> None:
    mark = uuid.uuid4().hex
    stages = f"{PLAIN.decode()}LABEL {mark}=1\nRUN echo x > /x\nFROM tiltyard/python:3.11\nCOPY --from=0 /x /y\n"
    archive = pack(context(stages.encode() + b'CMD ["/y"]\n'))
    first, second = builder.build(archive), builder.build(archive)
    assert images_with(builder.client, mark) == []
    assert first.image_id != second.image_id  # so one run cannot take the other's away
    images.remove_image(builder.client, first.image_id)
    assert builder.client.images.get(second.image_id)


def test_a_volume_over_a_system_folder_is_rejected(builder: Builder, pack: Pack) -> None:
    with pytest.raises(SubmissionFault, match="VOLUME at /etc/x"):
        builder.build(pack(context(PLAIN + b"VOLUME /etc/x\n")))


def image_archive(
    path: Path, *members: tuple[str, bytes, str], tags: list[str] | None = None, labels: bool = True
) -> Path:
    """A `docker save` archive with one layer of (name, type, content or link target) members."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.devmajor, info.devminor = kind, 0o4755, 1, 3
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content
            archive.addfile(info, io.BytesIO(content.encode()))
    raw = layer.getvalue()
    diff_id = "sha256:" + hashlib.sha256(raw).hexdigest()
    names = ("name", "base_model", "training_data", "licence")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/x"], "Labels": {f"tiltyard.{name}": "x" for name in names} if labels else {}},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    manifest = [{"Config": "c.json", "RepoTags": tags, "Layers": ["l/layer.tar"]}]
    with tarfile.open(path, "w:gz") as outer:
        for name, content in (
            ("l/layer.tar", raw),
            ("c.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
            ("repositories", json.dumps({"tiltyard/python": {"3.11": "l"}}).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            outer.addfile(info, io.BytesIO(content))
    return path


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
