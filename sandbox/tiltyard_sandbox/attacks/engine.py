"""Put the attacks onto an engine, run them in a container, and read what came of each."""

import io
import json
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any, Final, Literal

import docker

from tiltyard_sandbox.attacks.inside.files import CAPABLE_PYTHON, OPEN_FOLDER, SUID_PYTHON, VOLUME
from tiltyard_sandbox.containers import ROLE_LABEL, VOLUME_TMPFS_BYTES
from tiltyard_sandbox.engine import ENGINE_ERRORS
from tiltyard_sandbox.limits import KIB, MIB, Limits
from tiltyard_sandbox.verdicts import InfraFault

ROLE: Final = "selfcheck"
FOLDER: Final = "/attacks"
RUN_S: Final = 90.0
_POLL_S: Final = 0.05
STRAY_S: Final = 900.0  # older than any run of attacks: its maker is dead
# Small, so that a limit is reached at once, and that it does no harm should one not hold.
ATTACK_LIMITS: Final = Limits(
    memory_bytes=96 * MIB,
    cpus=0.5,
    pids=48,
    open_files=128,
    shm_bytes=4 * MIB,
    tmpfs_bytes=8 * MIB,
    tmpfs_inodes=512,
    log_bytes=128 * KIB,
    build_s=60,
)
_START: Final = (
    f"import runpy, sys; sys.path.insert(0, {FOLDER!r}); "
    "runpy.run_module('tiltyard_sandbox.attacks.inside', run_name='__main__')"
)
ENTRYPOINT: Final = ("python3", "-I", "-c", _START)
# cap_net_raw, permitted and effective, as the kernel stores it: linux/capability.h, VFS_CAP_REVISION_2.
_PREPARE: Final = f"""
import os, shutil, struct, sys
program = os.path.realpath(sys.executable)
shutil.copy(program, {SUID_PYTHON!r})
os.chmod({SUID_PYTHON!r}, 0o4755)
shutil.copy(program, {CAPABLE_PYTHON!r})
os.chmod({CAPABLE_PYTHON!r}, 0o755)
os.setxattr({CAPABLE_PYTHON!r}, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
for folder in ({OPEN_FOLDER!r}, {VOLUME!r}):
    os.mkdir(folder)
    os.chmod(folder, 0o777)
"""
_CHANGES: Final = (
    f"ENV LD_PRELOAD={FOLDER}/evil.so NVIDIA_VISIBLE_DEVICES=all",
    "USER root",
    f"VOLUME {VOLUME}",
    "HEALTHCHECK --interval=1s CMD touch /dev/shm/health-check-ran",
)

Outcome = Literal["worked", "refused", "absent", "broken"]


@dataclass(frozen=True)
class Finding:
    """What came of one attack; `saw` is a few words of evidence."""

    outcome: Outcome
    saw: str

    @property
    def is_held(self) -> bool:
        """Whether the attacker got nothing. A broken attack proves nothing."""
        return self.outcome in {"refused", "absent"}


@contextmanager
def attackers_image(client: docker.DockerClient, base: str, labels: Mapping[str, str]) -> Iterator[str]:
    """An image with the attacks, and with all that an image can say against its reader; removed at the end.

    `base` needs a `python3`. The image has these labels, and whatever is made from it. Raises InfraFault.
    """
    image_id = None
    try:
        image_id = _prepared(client, base, {**labels, ROLE_LABEL: ROLE})
        yield image_id
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error
    finally:
        if image_id is not None:
            with suppress(docker.errors.ImageNotFound):  # it goes with the last image that was made from it
                client.images.remove(image_id, force=True)


def _prepared(client: docker.DockerClient, base: str, labels: Mapping[str, str]) -> str:
    container = client.containers.create(
        base,
        entrypoint=["python3", "-I", "-S", "-c", _PREPARE],
        command=[],
        user="0:0",
        network_mode="none",
        labels=dict(labels),
    )
    try:
        container.put_archive("/", _sources())
        container.start()
        status = container.wait(timeout=60)["StatusCode"]
        if status != 0:
            said = container.logs(tail=5).decode(errors="replace").strip()
            raise InfraFault(f"The image {base} cannot be attacked from; python3 in it ended with {status}: {said}")
        changes = [*_CHANGES, *(f"LABEL {name}={value}" for name, value in labels.items())]
        return str(container.commit(changes=changes, conf={"StopSignal": "SIGCONT"}).id)
    finally:
        container.remove(force=True, v=True)


def _sources() -> bytes:
    """The programs, as a tar archive for the container's root."""
    out = io.BytesIO()
    folder = resources.files("tiltyard_sandbox") / "attacks" / "inside"
    with tarfile.open(fileobj=out, mode="w") as archive:
        for file in folder.iterdir():
            if file.name.endswith(".py"):
                content = file.read_bytes()
                info = tarfile.TarInfo(f"{FOLDER[1:]}/tiltyard_sandbox/attacks/inside/{file.name}")
                info.size, info.mode = len(content), 0o644
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def command(names: Sequence[str], limits: Limits, targets: Mapping[str, Any]) -> list[str]:
    """What starts these attacks inside a container of the image."""
    numbers = {name: value for name, value in asdict(limits).items() if isinstance(value, int)}
    numbers |= {"cpu_percent": round(100 * limits.cpus), "volume_bytes": VOLUME_TMPFS_BYTES}
    argument = {"attacks": list(names), "limits": numbers, "targets": dict(targets)}
    return [*ENTRYPOINT, json.dumps(argument)]


def run_attacks(
    client: docker.DockerClient,
    options: Mapping[str, Any],
    names: Sequence[str],
    *,
    limits: Limits = ATTACK_LIMITS,
    targets: Mapping[str, Any] | None = None,
) -> dict[str, Finding]:
    """Run the attacks in a container with these options, which `image` is one of; it is removed.

    An attack that the container did not live to report is broken. Raises one of ENGINE_ERRORS.
    """
    container = client.containers.create(
        **{**options, "entrypoint": command(names, limits, targets or {}), "command": []}
    )
    try:
        container.start()
        deadline = time.monotonic() + RUN_S
        while container.status not in {"exited", "dead"} and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            container.reload()
        found = findings(_lines(container, stderr=False), names)
        if all(one.outcome == "broken" for one in found.values()):
            last_words = " ".join(_lines(container, stdout=False)[-3:])[-300:]
            raise InfraFault(f"The attacks cannot be run in a container: {last_words or 'it printed nothing'}")
        return found
    finally:
        container.remove(force=True, v=True)


def _lines(container: Any, *, stdout: bool = True, stderr: bool = True) -> list[str]:
    return str(container.logs(stdout=stdout, stderr=stderr).decode(errors="replace")).splitlines()


def findings(lines: Sequence[str], names: Sequence[str]) -> dict[str, Finding]:
    """What the attacks printed, by their names."""
    found = {name: Finding("broken", "its container ended before it") for name in names}
    for line in lines:
        try:
            record = json.loads(line)
            if record["attack"] in found:
                found[record["attack"]] = Finding(record["outcome"], record["saw"])
        except (ValueError, TypeError, KeyError):
            continue  # a build's log has other lines too
    return found


def remove_strays(client: docker.DockerClient) -> None:
    """Remove what an earlier run left that was killed; raises one of ENGINE_ERRORS."""
    filters = {"label": f"{ROLE_LABEL}={ROLE}"}
    for container in client.api.containers(all=True, filters=filters):
        if time.time() - container["Created"] > STRAY_S:
            client.api.remove_container(container["Id"], force=True, v=True)
    for image in client.api.images(filters=filters):
        if time.time() - image["Created"] > STRAY_S:
            client.api.remove_image(image["Id"], force=True)
