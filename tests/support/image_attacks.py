"""What a hostile image archive or upload tries, and what stops it; the same given to the bare engine works."""

import io
import tarfile
import uuid
from collections.abc import Callable
from typing import Any

from images_for_tests import PYTHON_IMAGE, context
from outside_world import FROM, Outside, World

from tiltyard_sandbox import layers
from tiltyard_sandbox.containers import submission_options
from tiltyard_sandbox.defences import Defence
from tiltyard_sandbox.images import volume_paths
from tiltyard_sandbox.limits import MIB
from tiltyard_sandbox.verdicts import Reason

SET_USER_ID = "RUN cp /usr/bin/python3.11 /suid && chmod 4755 /suid\n"
ONE_FILE = ("x", tarfile.REGTYPE, "x")


def _hijack(world: World) -> None:
    ours = world.client.images.get(PYTHON_IMAGE).id
    world.builder.load(world.archive(ONE_FILE, tags=[PYTHON_IMAGE]))
    assert world.client.images.get(PYTHON_IMAGE).id == ours


def _hijack_works(world: World) -> None:
    tag = f"tiltyard-test/victim:{uuid.uuid4().hex[:8]}"
    world.client.images.get(PYTHON_IMAGE).tag(tag)
    world.made.append(tag)
    (loaded,) = world.raw_load(world.archive(ONE_FILE, tags=[tag]))
    assert world.client.images.get(tag).id == loaded.id != world.client.images.get(PYTHON_IMAGE).id


def _rejects(says: str, *members: tuple[str, bytes, str], **options: Any) -> Callable[[World], None]:
    return lambda world: world.refuses(
        lambda: world.builder.load(world.archive(*members, **options)), Reason.IMAGE_REJECTED, says
    )


def _engine_takes(*members: tuple[str, bytes, str], **options: Any) -> Callable[[World], None]:
    def control(world: World) -> None:
        assert len(world.raw_load(world.archive(*members, **options))) == 1

    return control


BIG = ("big", tarfile.REGTYPE, "\0" * (40 * MIB))
MANY = tuple((f"f{number}", tarfile.REGTYPE, "") for number in range(1200))


def _bomb(world: World) -> None:
    archive = world.archive(BIG)
    assert archive.stat().st_size < MIB
    world.refuses(
        lambda: world.builder.load(archive, image_bytes_max=32 * MIB), Reason.IMAGE_REJECTED, "holds more than"
    )


def _bomb_works(world: World) -> None:
    (loaded,) = world.raw_load(world.archive(BIG))
    assert loaded.attrs["Size"] > 32 * MIB


def _many(world: World) -> None:
    world.monkeypatch.setattr(layers, "LAYER_ENTRIES_MAX", 1000)
    _rejects("more than 1000 entries", *MANY)(world)


def _volume_over_etc_works(world: World) -> None:
    (loaded,) = world.raw_load(world.archive(ONE_FILE, config={"Volumes": {"/etc/x": {}}}))
    container = world.client.containers.create(loaded.id, labels={"tiltyard.test": "outside"})
    try:
        assert [mount["Destination"] for mount in container.attrs["Mounts"]] == ["/etc/x"]
    finally:
        container.remove(force=True, v=True)


def _set_user_id(world: World) -> None:
    """Taken, and inert: every Debian image has such files."""
    built = world.builder.build(
        world.pack(FROM + 'RUN cp /usr/bin/python3.11 /suid && chmod 4755 /suid\nCMD ["/suid"]\n')
    )
    assert _effective_uid(world, built.image_id, hardened=True) == "65532"


def _set_user_id_works(world: World) -> None:
    image, _ = world.raw_build(FROM + SET_USER_ID)
    assert _effective_uid(world, image.id, hardened=False) == "0"


def _effective_uid(world: World, image: str, *, hardened: bool) -> str:
    code = ["/suid", "-c", "import os; print(os.geteuid())"]
    labels = {"tiltyard.test": "outside"}
    options = submission_options(image, volumes=volume_paths({}), limits=world.builder.limits, labels=labels, port=8000)
    options |= {"entrypoint": code, "command": []}
    if not hardened:
        options = {"image": image, "entrypoint": code, "user": "65532", "labels": labels, "network_mode": "none"}
    container = world.client.containers.create(**options)
    try:
        container.start()
        container.wait(timeout=30)
        return str(container.logs(stderr=False).decode().strip())
    finally:
        container.remove(force=True, v=True)


def _upload(says: str, *members: tarfile.TarInfo) -> Callable[[World], None]:
    def attack(world: World) -> None:
        path = world.folder / f"{uuid.uuid4().hex}.tar"
        with tarfile.open(path, "w") as archive:
            for name, content in context(f"{FROM}COPY . /x\n".encode()).items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            for info in members:
                archive.addfile(info)
        world.refuses(lambda: world.builder.build(path), Reason.IMAGE_REJECTED, says)

    return attack


def _member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.devmajor, info.devminor = kind, target, 1, 3
    return info


def _naive(name: str, kind: bytes, target: str) -> Callable[[World], None]:
    """What the tar reader of Python does without a filter, below a folder of the test's own."""

    def control(world: World) -> None:
        below = world.folder / "below"
        below.mkdir()
        path = world.folder / "naive.tar"
        with tarfile.open(path, "w") as archive:
            archive.addfile(_member(name, kind, target))
        with tarfile.open(path) as archive:
            archive.extractall(below, filter="fully_trusted")  # noqa: S202  that is the point
        assert (below / name).is_symlink() or (below / name).exists()

    return control


ENGINE_HOLDS = "the engine refuses it too"
IMAGE_ATTACKS: dict[str, Outside] = {
    "tag_hijack": Outside("replace a base image by a tag", Defence.TAGS_REWRITTEN, _hijack, _hijack_works),
    "layer_device": Outside(
        "bring a block device in a layer",
        Defence.LAYER_SCAN,
        _rejects("holds a device", ("srv/sda", tarfile.BLKTYPE, "")),
        _engine_takes(("srv/sda", tarfile.BLKTYPE, "")),
    ),
    "layer_escape": Outside(
        "write beside the layer by ../",
        Defence.LAYER_SCAN,
        _rejects("path that leaves it", ("../escaped", tarfile.REGTYPE, "x")),
        ENGINE_HOLDS,
    ),
    "layer_absolute": Outside(
        "write beside the layer by an absolute path",
        Defence.LAYER_SCAN,
        _rejects("path that leaves it", ("/escaped", tarfile.REGTYPE, "x")),
        _engine_takes(("/escaped", tarfile.REGTYPE, "x")),
    ),
    "layer_hard_link": Outside(
        "link to a file of the host",
        Defence.LAYER_SCAN,
        _rejects("path that leaves it", ("h", tarfile.LNKTYPE, "../../etc/passwd")),
        ENGINE_HOLDS,
    ),
    "layer_bomb": Outside("fill the disk from a few kilobytes", Defence.LAYER_SCAN, _bomb, _bomb_works),
    "layer_many": Outside("fill the disk with names", Defence.LAYER_SCAN, _many, _engine_takes(*MANY)),
    "image_volume": Outside(
        "have a VOLUME below /etc",
        Defence.CONFIG_CHECKED,
        _rejects("VOLUME at /etc/x", ONE_FILE, config={"Volumes": {"/etc/x": {}}}),
        _volume_over_etc_works,
    ),
    "image_no_command": Outside(
        "say nothing of how it starts",
        Defence.CONFIG_CHECKED,
        _rejects("neither ENTRYPOINT nor CMD", ONE_FILE, config={"Cmd": None}),
        _engine_takes(ONE_FILE, config={"Cmd": None}),
    ),
    "image_set_user_id": Outside(
        "bring a set-user-id program", Defence.NO_NEW_PRIVILEGES, _set_user_id, _set_user_id_works
    ),
    "upload_escape": Outside(
        "name a file of the context ../",
        Defence.ARCHIVE_SCAN,
        _upload("outside|leaves|leave", _member("../escaped", tarfile.DIRTYPE)),
        _naive("../escaped", tarfile.DIRTYPE, ""),
    ),
    "upload_link": Outside(
        "link from the context to the host",
        Defence.ARCHIVE_SCAN,
        _upload("link", _member("passwd", tarfile.SYMTYPE, "/etc/passwd")),
        _naive("passwd", tarfile.SYMTYPE, "/etc/passwd"),
    ),
    "upload_device": Outside(
        "bring a device in the context",
        Defence.ARCHIVE_SCAN,
        _upload("device|neither", _member("null", tarfile.CHRTYPE)),
        _naive("null", tarfile.CHRTYPE, ""),
    ),
}
