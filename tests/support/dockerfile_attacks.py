"""What a hostile Dockerfile tries, and what stops it; the same given to the bare engine works."""

import io
import tarfile
import time
import uuid
from collections.abc import Callable
from typing import Any

from outside_world import FROM, Outside, World

from tiltyard_sandbox.defences import Defence
from tiltyard_sandbox.limits import MIB
from tiltyard_sandbox.verdicts import Reason

INTERFACES = "RUN python3 -c 'import socket; print([name for _, name in socket.if_nameindex()])'\n"
ALLOCATE = "RUN python3 -c 'x = bytearray(400 << 20); print(len(x))'\n"
FLOOD = "RUN python3 -c \"[print('x' * 99) for _ in range(5000)]\"\n"
FORKS = (
    b"import os,time\ntime.sleep(1.5)\nmade=0\ntry:\n while made<200:\n  if os.fork()==0: time.sleep(1);os._exit(0)\n"
    b"  made+=1\nexcept OSError: pass\nprint('forked',made)\n"
)


def _build_fails(
    says: str, dockerfile: str, files: dict[str, bytes] | None = None, **limits: Any
) -> Callable[[World], None]:
    return lambda world: world.refuses(
        lambda: world.builder.build(world.pack(dockerfile, **(files or {})), **limits), Reason.BUILD_FAILED, says
    )


def _foreign(world: World) -> str:
    """An image of somebody else on the same engine, with a secret in it."""
    name = f"tiltyard-test/foreign:{uuid.uuid4().hex[:8]}"
    image, _ = world.raw_build(FROM + "RUN echo hidden-question > /secret\n")
    image.tag(name)
    world.made.append(name)
    return name


def _foreign_base(world: World) -> None:
    name = _foreign(world)
    _build_fails("is not one of the competition's", f"FROM {name}\nRUN cat /secret\n")(world)


def _foreign_base_works(world: World) -> None:
    _, log = world.raw_build(f"FROM {_foreign(world)}\nRUN cat /secret\n")
    assert "hidden-question" in log


def _copy_from(world: World) -> None:
    _build_fails("is not one of the competition's", f"{FROM}COPY --from={_foreign(world)} /secret /s\n")(world)


def _copy_from_works(world: World) -> None:
    _, log = world.raw_build(f"{FROM}COPY --from={_foreign(world)} /secret /s\nRUN cat /s\n")
    assert "hidden-question" in log


def _add_address(world: World) -> None:
    _build_fails("no URLs", f"{FROM}ADD http://{world.service}/fetch /x\n")(world)
    assert world.visits == []


def _add_address_works(world: World) -> None:
    """The engine fetches it itself, from where the host stands, whatever the build's network."""
    _, log = world.raw_build(f"{FROM}ADD http://{world.service}/fetch /x\nRUN cat /x\n", network_mode="none")
    assert world.visits == ["/fetch"]
    assert "fetched" in log


def _hidden_archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("unpacked")
        info.size = 30 * MIB
        archive.addfile(info, io.BytesIO(b"\0" * info.size))
    return out.getvalue()


def _add_unpacks(world: World) -> None:
    built = world.builder.build(world.pack(f'{FROM}ADD weights /w\nCMD ["x"]\n', weights=_hidden_archive()))
    assert "plain" in world.shell(built.image_id, "test -f /w && echo plain")


def _add_unpacks_works(world: World) -> None:
    image, _ = world.raw_build(f"{FROM}ADD weights /w/\n", {"weights": _hidden_archive()})
    assert str(30 * MIB) in world.shell(image.id, "stat -c %s /w/unpacked")


def _trigger_works(world: World) -> None:
    image, _ = world.raw_build(f"{FROM}ONBUILD RUN echo trigger\n")
    assert image.attrs["Config"]["OnBuild"] == ["RUN echo trigger"]


def _label(world: World) -> None:
    built = world.builder.build(world.pack(f'{FROM}ARG X=tilt\nLABEL ${{X}}yard.role=gauge\nCMD ["x"]\n'))
    assert "tiltyard.role" not in world.client.images.get(built.image_id).labels


def _label_works(world: World) -> None:
    image, _ = world.raw_build(f"{FROM}ARG X=tilt\nLABEL ${{X}}yard.role=gauge\n")
    assert image.labels["tiltyard.role"] == "gauge"


def _cache(world: World) -> None:
    """A step that a neighbour's build has run is not taken from the cache, nor its files read from there."""
    step = f'{FROM}RUN head -c 8 /dev/urandom > /r\nCMD ["x"]\n'
    one, two = (world.builder.build(world.pack(step)).image_id for _ in range(2))
    assert world.shell(one, "od /r") != world.shell(two, "od /r")


def _cache_works(world: World) -> None:
    step = f"{FROM}RUN head -c 8 /dev/urandom > /r-{uuid.uuid4().hex}\n"
    assert world.raw_build(step)[0].id == world.raw_build(step)[0].id


def _network(world: World) -> None:
    world.builder.build(world.pack(FROM + INTERFACES))
    assert "['lo']" in world.builder.log


def _network_works(world: World) -> None:
    assert "eth0" in world.raw_build(FROM + INTERFACES, nocache=True)[1]


def _secret(world: World) -> None:
    world.monkeypatch.setenv("TILTYARD_SECRET_KEY", "hidden-question")
    world.builder.build(world.pack(f"{FROM}ARG TILTYARD_SECRET_KEY\nRUN env; ls -a / /run /run/secrets || true\n"))
    assert not any("hidden-question" in line for line in world.builder.log)
    assert not any("docker.sock" in line for line in world.builder.log)


def _secret_works(world: World) -> None:
    arguments = {"TILTYARD_SECRET_KEY": "hidden-question"}
    assert "hidden-question" in world.raw_build(f"{FROM}ARG TILTYARD_SECRET_KEY\nRUN env\n", buildargs=arguments)[1]


def _slow(world: World) -> None:
    begin = time.monotonic()
    _build_fails("longer than 2 s", f"{FROM}RUN echo slow; sleep 600\n", build_s=2.0)(world)
    assert time.monotonic() - begin < 30


def _slow_works(world: World) -> None:
    assert "slept" in world.raw_build(f"{FROM}RUN sleep 3; echo slept\n", nocache=True)[1]


def _memory_works(world: World) -> None:
    assert str(400 << 20) in world.raw_build(FROM + ALLOCATE, nocache=True)[1]


def _forks(world: World) -> None:
    world.builder.build(world.pack(f"{FROM}COPY b /b\nRUN python3 /b\n", b=FORKS))
    made = next(int(line.split()[1]) for line in world.builder.log if line.startswith("forked"))
    assert made < world.builder.limits.pids


def _forks_work(world: World) -> None:
    assert "forked 200" in world.raw_build(f"{FROM}COPY b /b\nRUN python3 /b\n", {"b": FORKS}, nocache=True)[1]


FILL = "RUN for i in 1 2 3 4; do dd if=/dev/zero of=/x$i bs=1M count=40; done; sleep {seconds}\n"


def _disk_works(world: World) -> None:
    image, _ = world.raw_build(FROM + FILL.format(seconds=0), nocache=True)
    assert image.attrs["Size"] > 300 * MIB


def _log(world: World) -> None:
    world.builder.build(world.pack(FROM + FLOOD))
    assert sum(map(len, world.builder.log)) < world.builder.limits.log_bytes + 200


def _log_works(world: World) -> None:
    assert len(world.raw_build(FROM + FLOOD, nocache=True)[1]) > 3 * world.builder.limits.log_bytes


DOCKERFILE_ATTACKS: dict[str, Outside] = {
    "foreign_base": Outside(
        "build on another's image", Defence.DOCKERFILE_REWRITTEN, _foreign_base, _foreign_base_works
    ),
    "copy_from": Outside("copy from another's image", Defence.DOCKERFILE_REWRITTEN, _copy_from, _copy_from_works),
    "add_address": Outside(
        "have the engine fetch an address", Defence.DOCKERFILE_REWRITTEN, _add_address, _add_address_works
    ),
    "add_unpacks": Outside(
        "have the engine unpack unseen bytes", Defence.DOCKERFILE_REWRITTEN, _add_unpacks, _add_unpacks_works
    ),
    "trigger": Outside(
        "leave a trigger for later builds",
        Defence.DOCKERFILE_REWRITTEN,
        _build_fails("ONBUILD is not allowed", f"{FROM}ONBUILD RUN echo trigger\n"),
        _trigger_works,
    ),
    "forged_label": Outside("pose as the platform's by a label", Defence.DOCKERFILE_REWRITTEN, _label, _label_works),
    "shared_cache": Outside(
        "read a neighbour's build by the cache", Defence.DOCKERFILE_REWRITTEN, _cache, _cache_works
    ),
    "build_network": Outside("reach out in a RUN step", Defence.BUILD_NO_NETWORK, _network, _network_works),
    "build_secret": Outside("read the host's secrets in a build", Defence.BUILD_NO_SECRETS, _secret, _secret_works),
    "build_time": Outside("build for ever", Defence.BUILD_TIME, _slow, _slow_works),
    "build_memory": Outside(
        "take memory in a RUN step",
        Defence.BUILD_MEMORY,
        _build_fails("returned a non-zero code: 137", FROM + ALLOCATE),
        _memory_works,
    ),
    "build_forks": Outside("fork in a RUN step", Defence.BUILD_PROCESSES, _forks, _forks_work),
    "build_disk": Outside(
        "fill the disk in a RUN step",
        Defence.BUILD_DISK,
        _build_fails("wrote more than an image may hold", FROM + FILL.format(seconds=600), image_bytes_max=100 * MIB),
        _disk_works,
    ),
    "build_log": Outside("fill the log in a RUN step", Defence.BUILD_LOG, _log, _log_works),
}
