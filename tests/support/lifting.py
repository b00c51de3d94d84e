"""Take single defences away from a container's options, to see that the attack works which they stop."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import docker
from docker.types import Mount, Ulimit

from tiltyard_sandbox.attacks.inside.files import VOLUME
from tiltyard_sandbox.defences import Defence

MIB: Final = 1 << 20


def lifted(options: Mapping[str, Any], defences: Collection[Defence], mounts: Mapping[str, Path]) -> dict[str, Any]:
    """The same options without these defences. What is then possible is bounded: this is a host with neighbours."""
    without = {**options, "tmpfs": dict(options["tmpfs"]), "environment": dict(options["environment"])}
    for defence in sorted(defences):
        _LIFT[defence](without)
    binds: dict[str, Path] = {}
    if Defence.NO_HOST_MOUNTS in defences:
        binds |= mounts
    if Defence.SYSTEM_PATHS in defences:  # beside what `unmasked` does
        binds |= {path: Path(path) for path in ("/sys", "/sys/fs/cgroup")}
    without["mounts"] = [Mount(inside, str(path), type="bind") for inside, path in binds.items()]
    return without


@contextmanager
def unmasked(client: docker.DockerClient) -> Iterator[None]:
    """Have the engine mask no path of /proc in containers made meanwhile; the SDK has no parameter for it."""
    create = client.api.create_container_from_config

    def create_unmasked(config: Any, *arguments: Any, **named: Any) -> Any:
        config["HostConfig"] |= {"MaskedPaths": [], "ReadonlyPaths": []}
        return create(config, *arguments, **named)

    client.api.create_container_from_config = create_unmasked
    try:
        yield
    finally:
        client.api.create_container_from_config = create


# In the order of the kernel's numbers: linux/capability.h.
CAPABILITIES: Final = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
]


def host_capabilities() -> list[str]:
    """Those that this host has to give; an engine that is confined itself cannot give all of them."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    bits = int(line.split()[1], 16)
    return [name for number, name in enumerate(CAPABILITIES) if bits >> number & 1]


def _option(**changes: Any) -> Any:
    return lambda options: options.update(changes)


def _security(prefix: str, *instead: str) -> Any:
    def lift(options: dict[str, Any]) -> None:
        kept = [one for one in options["security_opt"] if not one.startswith(prefix)]
        options["security_opt"] = [*kept, *instead]

    return lift


def _ulimit(name: str, value: int | None) -> Any:
    def lift(options: dict[str, Any]) -> None:
        kept = [one for one in options["ulimits"] if one["Name"] != name]
        options["ulimits"] = kept if value is None else [*kept, Ulimit(name=name, soft=value, hard=value)]

    return lift


def _capabilities(options: dict[str, Any]) -> None:
    options.pop("cap_drop")
    options["cap_add"] = host_capabilities()


def _no_key(name: str) -> Any:
    return lambda options: options.pop(name)


def _tmpfs(options: dict[str, Any]) -> None:
    for path in ("/tmp", "/dev/shm"):
        words = [word for word in options["tmpfs"][path].split(",") if not word.startswith(("size=", "nr_inodes="))]
        options["tmpfs"][path] = ",".join([*words, f"size={256 * MIB}"])


def _executable(options: dict[str, Any]) -> None:
    options["tmpfs"]["/dev/shm"] = options["tmpfs"]["/dev/shm"].replace("noexec", "exec")


_LIFT: Final = {
    Defence.EMPTY_NETWORK: _option(network_mode="bridge"),  # or what the attack needs: see the test
    Defence.SECCOMP: _security("seccomp=", "seccomp=unconfined"),
    Defence.NO_CAPABILITIES: _capabilities,
    Defence.UNPRIVILEGED_USER: _option(user="0:0"),
    Defence.NO_NEW_PRIVILEGES: _security("no-new-privileges"),
    Defence.READ_ONLY_ROOT: _option(read_only=False),
    Defence.VOLUMES_COVERED: lambda options: options["tmpfs"].pop(VOLUME),
    Defence.TMPFS_QUOTA: _tmpfs,
    Defence.NO_EXEC_SHM: _executable,
    Defence.MEMORY_LIMIT: _option(mem_limit=512 * MIB, memswap_limit=512 * MIB),
    Defence.PROCESS_LIMIT: _option(pids_limit=300),
    Defence.CPU_LIMIT: _no_key("nano_cpus"),
    Defence.OPEN_FILES_LIMIT: _ulimit("nofile", 4096),
    Defence.FILE_SIZE_LIMIT: _ulimit("fsize", None),
    Defence.NO_CORE_DUMPS: _ulimit("core", 8 * MIB),
    Defence.PRIVATE_IPC: _option(ipc_mode="host"),
    Defence.PRIVATE_PIDS: _option(pid_mode="host"),
    Defence.SYSTEM_PATHS: _option(),
    Defence.DEVICE_RULES: _option(device_cgroup_rules=["c 1:11 rwm"]),
    Defence.NO_HOST_MOUNTS: _option(),
    Defence.ENVIRONMENT: _option(environment={}),
    Defence.LOG_LIMIT: _no_key("log_config"),
    Defence.NO_HEALTHCHECK: _no_key("healthcheck"),
}
