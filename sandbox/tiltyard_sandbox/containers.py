"""The flags of the two containers: everything that holds a submission in is written down here."""

import json
import os
import stat
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from tiltyard_sandbox.image_environment import GPU_CAPABILITIES, environment_of
from tiltyard_sandbox.limits import GIB, MIB, Limits
from tiltyard_sandbox.verdicts import InfraFault

SUITE_MOUNT: Final = "/suite"  # where the evaluator finds the suite, read-only
RESULTS_MOUNT: Final = "/results"  # and where it writes: pass `--suite /suite --out /results`
UID: Final = 65532  # the customary "nonroot"; no account on the host has it
ROLE_LABEL: Final = "tiltyard.role"
VOLUME_TMPFS_BYTES: Final = 1 * MIB
VOLUME_TMPFS_INODES: Final = 64
EVALUATOR_LIMITS: Final = Limits(memory_bytes=3 * GIB, cpus=2.0, pids=256, tmpfs_bytes=256 * MIB)
PRIVILEGED_PORTS: Final = 1024  # below it, a port needs a capability or the sysctl that waives it
GAUGE_LIMITS: Final = Limits(memory_bytes=64 * MIB, cpus=0.5, pids=16, shm_bytes=1 * MIB, tmpfs_bytes=1 * MIB)
PROXY_LIMITS: Final = Limits(memory_bytes=256 * MIB, cpus=1.0, pids=160, shm_bytes=1 * MIB, tmpfs_bytes=1 * MIB)
RESULT_FILE_MAX_BYTES: Final = 1 * GIB


def submission_options(
    image: str,
    *,
    volumes: Sequence[str],
    limits: Limits,
    labels: Mapping[str, str],
    port: int,
    image_env: Sequence[str] = (),
) -> dict[str, Any]:
    """Arguments for `client.containers.create`: the participant's server, in a network with a loopback and no more.

    `volumes` and `image_env` ("NAME=value") are those of the image's configuration.
    """
    options = _hardened(limits, {**labels, ROLE_LABEL: "submission"})
    options["tmpfs"].update({path: _covering_tmpfs() for path in volumes if path not in options["tmpfs"]})
    options["environment"].update(environment_of(image_env, limits.gpu_uuid), TILTYARD_PORT=str(port))
    if limits.cpuset is not None:
        options["cpuset_cpus"] = limits.cpuset
    if limits.runtime is not None:
        options["runtime"] = limits.runtime
    if limits.gpu_uuid is not None:
        capabilities = [["gpu", *GPU_CAPABILITIES]]
        options["device_requests"] = [DeviceRequest(device_ids=[limits.gpu_uuid], capabilities=capabilities)]
    if port < PRIVILEGED_PORTS:  # a sysctl of the container's own network, in which nobody else listens
        options["sysctls"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
    return {**options, "image": image, "network_mode": "none", "user": f"{UID}:{UID}"}


def evaluator_options(
    image: str,
    *,
    command: Sequence[str],
    suite_dir: Path,
    results_dir: Path,
    labels: Mapping[str, str],
    submission_id: str,
    first_ids: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """Arguments for `client.containers.create`: the evaluator, in the submission's network and nothing else of it.

    `first_ids` as `engine.first_ids` gives them.
    """
    options = _hardened(EVALUATOR_LIMITS, {**labels, ROLE_LABEL: "evaluator"})
    options["ulimits"] = _ulimits(EVALUATOR_LIMITS, RESULT_FILE_MAX_BYTES)
    mounts = [
        Mount(SUITE_MOUNT, str(suite_dir.resolve()), type="bind", read_only=True),
        Mount(RESULTS_MOUNT, str(results_dir.resolve()), type="bind"),
    ]
    return {
        **options,
        "image": image,
        "command": list(command),
        "network_mode": f"container:{submission_id}",
        "mounts": mounts,
        "user": results_owner(suite_dir, results_dir, first_ids),
    }


def gauge_options(image: str, *, command: Sequence[str], labels: Mapping[str, str]) -> dict[str, Any]:
    """Arguments for `client.containers.create`: a trusted program that looks at its own root, and has nothing else."""
    options = _hardened(GAUGE_LIMITS, {**labels, ROLE_LABEL: "gauge"})
    return {
        **options,
        "image": image,
        "entrypoint": list(command),
        "command": [],
        "network_mode": "none",
        "user": f"{UID}:{UID}",
        "auto_remove": True,
    }


def proxy_options(image: str, command: Sequence[str], *, labels: Mapping[str, str], network: str) -> dict[str, Any]:
    """Arguments for `client.containers.create`: a trusted part of a build's way out (see `build_proxy`)."""
    # The role is a gauge's, by which a dead worker's leftovers are told.
    options = _hardened(PROXY_LIMITS, {**labels, ROLE_LABEL: "gauge"})
    return {
        **options,
        "image": image,
        "entrypoint": list(command),
        "command": [],
        "network_mode": network,
        "user": f"{UID}:{UID}",
    }


def results_owner(suite_dir: Path, results_dir: Path, first_ids: tuple[int, int] = (0, 0)) -> str:
    """Make the directories usable by the evaluator's account and name it, as "uid:gid" inside the container.

    As root, that is `UID`, which is given the results directory and must be able to read the suite. Otherwise it is the
    caller's own account, because only root may give files away. Raises InfraFault when the suite cannot be read, or an
    engine maps users and this process is not root.
    """
    if os.geteuid() != 0:
        if first_ids != (0, 0):
            raise InfraFault("The Docker engine maps users, so only root can hand it a folder: run the worker as root.")
        return f"{os.geteuid()}:{os.getegid()}"
    for path in [suite_dir, *suite_dir.rglob("*")]:
        mode = path.stat().st_mode
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if mode & needed != needed:
            raise InfraFault(f"The evaluator cannot read {path}: make it readable for others (chmod o+rX).")
    os.chown(results_dir, first_ids[0] + UID, first_ids[1] + UID)
    results_dir.chmod(0o700)
    return f"{UID}:{UID}"


def _hardened(limits: Limits, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "detach": True,
        "labels": dict(labels),
        "environment": {"HOME": "/tmp"},  # noqa: S108  a tmpfs of the container's own
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true", f"seccomp={seccomp_profile()}"],
        "ipc_mode": "private",
        "init": True,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,  # memory and swap together: so no swap
        "nano_cpus": int(limits.cpus * 1e9),
        "pids_limit": limits.pids,
        "oom_score_adj": 500,  # should the host itself run short, this goes first
        "ulimits": _ulimits(limits, max(limits.tmpfs_bytes, limits.shm_bytes)),
        "tmpfs": {
            # Executable: Triton and torch.compile load what they compile there, and a server that runs its own Python
            # gains nothing by it.
            "/tmp": _tmpfs(limits.tmpfs_bytes, limits.tmpfs_inodes, "exec"),  # noqa: S108
            "/dev/shm": _tmpfs(limits.shm_bytes, limits.tmpfs_inodes, "noexec"),  # noqa: S108
        },
        "log_config": LogConfig(
            type=LogConfig.types.JSON, config={"max-size": str(limits.log_bytes // 2), "max-file": "2"}
        ),
        "healthcheck": {"test": ["NONE"]},
        "restart_policy": {"Name": "no"},
    }


def _ulimits(limits: Limits, file_bytes: int) -> list[Ulimit]:
    values = {"core": 0, "nofile": limits.open_files, "fsize": file_bytes}
    return [Ulimit(name=name, soft=value, hard=value) for name, value in values.items()]


def _tmpfs(size_bytes: int, inodes: int, execution: str) -> str:
    return f"rw,nosuid,nodev,{execution},size={size_bytes},nr_inodes={inodes},mode=1777,uid={UID},gid={UID}"


def _covering_tmpfs() -> str:
    """For a VOLUME of the image: it would be writable and without bounds on the host's disk, so it is covered."""
    return _tmpfs(VOLUME_TMPFS_BYTES, VOLUME_TMPFS_INODES, "noexec")


@cache
def seccomp_profile() -> str:
    """The project's own seccomp profile, as the engine takes it: JSON on one line."""
    text = resources.files("tiltyard_sandbox").joinpath("seccomp.json").read_text()
    return json.dumps(json.loads(text), separators=(",", ":"))
