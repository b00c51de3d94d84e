"""Attacks through files and rights: what the image brings, what the engine mounts, what the host has."""

import ctypes
import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Final

from tiltyard_sandbox.attacks.inside.base import Absent, Aims, Refused, attack

SUID_PYTHON: Final = "/attacks/suid-python"  # root's, with the set-user-id bit
CAPABLE_PYTHON: Final = "/attacks/capable-python"  # with cap_net_raw in the file
OPEN_FOLDER: Final = "/attacks/open"  # anyone may write there
VOLUME: Final = "/attacks-volume"
MIB: Final = 1 << 20
HEALTH_CHECK_S: Final = 1.5  # its interval is a second


def _status(field: str) -> str:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.split(":", 1)[1].strip()
    raise Absent(f"no {field} in /proc/self/status")


@attack
def image_user(_aims: Aims) -> str:
    """An image that says USER root."""
    if os.getuid() != 0:
        raise Refused(f"uid {os.getuid()}")
    return "uid 0"


@attack
def become_root(_aims: Aims) -> str:
    """Ask to be root."""
    os.setuid(0)
    return "uid 0"


@attack
def set_user_id(_aims: Aims) -> str:
    """A program with root's set-user-id bit."""
    found = _output(SUID_PYTHON, "import os; print(os.geteuid())")
    if found != "0" or os.getuid() == 0:
        raise Refused(f"effective uid {found}")
    return "effective uid 0"


@attack
def file_capabilities(_aims: Aims) -> str:
    """A program whose file carries a capability."""
    found = _output(
        CAPABLE_PYTHON, "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')][0])"
    )
    if os.getuid() == 0 or int(found, 16) == 0:
        raise Refused(f"effective capabilities {found}")
    return f"effective capabilities {found}"


def _output(program: str, code: str) -> str:
    if not Path(program).exists():
        raise Absent(f"no {program} in this image")
    done = subprocess.run([program, "-I", "-S", "-c", code], capture_output=True, check=False, text=True)
    if done.returncode != 0:
        raise Refused(f"it ended with status {done.returncode}")
    return done.stdout.strip()


@attack
def capabilities(_aims: Aims) -> str:
    """Rights that could be had again."""
    if int(_status("CapBnd"), 16) == 0:
        raise Refused("none")
    return f"bounding set {_status('CapBnd')}"


@attack
def preload(_aims: Aims) -> str:
    """An image that says ENV LD_PRELOAD, which runs code in whatever starts first (CVE-2025-23266)."""
    if not os.environ.get("LD_PRELOAD"):
        raise Refused("LD_PRELOAD is empty")
    return os.environ["LD_PRELOAD"]


@attack
def all_gpus(_aims: Aims) -> str:
    """An image that says ENV NVIDIA_VISIBLE_DEVICES=all."""
    if os.environ.get("NVIDIA_VISIBLE_DEVICES") != "all":
        raise Refused(f"NVIDIA_VISIBLE_DEVICES is {os.environ.get('NVIDIA_VISIBLE_DEVICES')}")
    return "all"


@attack
def health_check(aims: Aims) -> str:
    """A command that the engine would start beside the server; it leaves a file where everybody can see it."""
    deadline = time.monotonic() + aims.targets.get("patience_s", HEALTH_CHECK_S)
    while time.monotonic() < deadline:
        if Path("/dev/shm/health-check-ran").exists():  # noqa: S108
            return "the engine ran it"
        time.sleep(0.1)
    raise Refused("it was not run")


@attack
def write_root(_aims: Aims) -> str:
    """Change the image's files."""
    Path("/etc/planted").write_text("x")
    return "written"


@attack
def fill_root(_aims: Aims) -> str:
    """Fill the host's disk through a folder that the image leaves open."""
    return _filled(OPEN_FOLDER, 32 * MIB, 0)


@attack
def fill_volume(aims: Aims) -> str:
    """Fill it through a VOLUME, which the engine makes writable whatever the root is."""
    return _filled(VOLUME, 32 * MIB, aims.limits["volume_bytes"])


@attack
def fill_tmp(aims: Aims) -> str:
    """More bytes in /tmp than allowed."""
    return _filled("/tmp", aims.limits["tmpfs_bytes"] + 8 * MIB, aims.limits["tmpfs_bytes"])  # noqa: S108


@attack
def fill_shm(aims: Aims) -> str:
    """More bytes in /dev/shm than allowed."""
    return _filled("/dev/shm", aims.limits["shm_bytes"] + 8 * MIB, aims.limits["shm_bytes"])  # noqa: S108


def _filled(folder: str, wanted: int, allowed: int) -> str:
    """In files of 1 MiB, so that no limit on one file's size stops it first."""
    if not Path(folder).is_dir():
        raise Absent(f"no {folder} in this image")
    written = 0
    made = []
    try:
        while written < wanted:
            made.append(Path(f"{folder}/fill-{written}"))
            made[-1].write_bytes(b"x" * MIB)
            written += MIB
    except OSError as error:
        if written > allowed:
            return f"{written >> 20} MiB"
        raise Refused(f"{written >> 20} MiB, then {error.strerror}") from None
    finally:
        for path in made:
            path.unlink(missing_ok=True)
    return f"{written >> 20} MiB"


@attack
def tmp_inodes(aims: Aims) -> str:
    """More files in /tmp than allowed: each takes memory, however short it is."""
    wanted = aims.limits["tmpfs_inodes"] + 100
    made = 0
    try:
        for made in range(wanted):
            Path(f"/tmp/inode-{made}").touch()  # noqa: S108
    except OSError as error:
        raise Refused(f"{made} files, then {error.strerror}") from None
    finally:
        for number in range(made + 1):
            Path(f"/tmp/inode-{number}").unlink(missing_ok=True)  # noqa: S108
    return f"{wanted} files"


@attack
def run_from_shm(_aims: Aims) -> str:
    """Run a program that was written to shared memory."""
    program = Path("/dev/shm/program")  # noqa: S108
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    try:
        subprocess.run([str(program)], check=True)
    finally:
        program.unlink()
    return "it ran"


@attack
def make_device(_aims: Aims) -> str:
    """Make a node for the disk that the host's files lie on."""
    device = _host_disk()
    node = Path(f"/tmp/disk-{os.getpid()}")  # noqa: S108
    os.mknod(node, stat.S_IFBLK | 0o600, device)
    node.unlink()
    return f"made {os.major(device)}:{os.minor(device)}"


@attack
def open_device(_aims: Aims) -> str:
    """Open a device that containers are not given, here the kernel's messages, through a node in /dev."""
    node = Path(f"/dev/attack-{os.getpid()}")
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 11))
    try:
        opened = os.open(node, os.O_RDONLY | os.O_NONBLOCK)
        return f"read {len(os.read(opened, 8192))} bytes of /dev/kmsg"
    finally:
        node.unlink()


def _host_disk() -> int:
    """The engine mounts this file from the host's disk."""
    return Path("/etc/hostname").stat().st_dev


@attack
def host_files(_aims: Aims) -> str:
    """What only the evaluator may see: the suite, the results."""
    found = [path for path in ("/suite", "/results") if Path(path).exists()]
    if not found:
        raise Refused("neither /suite nor /results")
    return ", ".join(found)


def _writable(path: str) -> str:
    """Only opened: were anything written, it would change the host."""
    if not Path(path).exists():
        raise Absent(f"no {path}")
    os.close(os.open(path, os.O_WRONLY))
    return f"{path} opened for writing"


@attack
def core_pattern(_aims: Aims) -> str:
    """Have the host's kernel start a program of one's own when something crashes."""
    return _writable("/proc/sys/kernel/core_pattern")


@attack
def sysrq(_aims: Aims) -> str:
    """Command the kernel directly, to crash or to restart."""
    return _writable("/proc/sysrq-trigger")


@attack
def sysfs(_aims: Aims) -> str:
    """Change the host's kernel and devices."""
    for path in ("/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/uevent_helper"):
        if Path(path).exists():
            return _writable(path)
    raise Absent("no file of the kind in /sys")


@attack
def own_limits(_aims: Aims) -> str:
    """Raise one's own memory limit, which is a file."""
    for path in ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"):
        if Path(path).exists():
            return _writable(path)
    raise Absent("cgroups are not to be seen")


@attack
def release_agent(_aims: Aims) -> str:
    """Have the host start a program when a control group is empty (CVE-2022-0492)."""
    for path in ("/sys/fs/cgroup/memory/notify_on_release", "/sys/fs/cgroup/cgroup.subtree_control"):
        if Path(path).exists():
            return _writable(path)
    raise Absent("cgroups are not to be seen")


@attack
def kernel_memory(_aims: Aims) -> str:
    """Read the kernel's memory."""
    if not Path("/proc/kcore").exists():
        raise Absent("no /proc/kcore")
    opened = os.open("/proc/kcore", os.O_RDONLY)
    if not os.read(opened, 4):
        raise Refused("an empty file lies over /proc/kcore")
    return "read its first bytes"


@attack
def host_processes(aims: Aims) -> str:
    """See what runs on the host, command lines included."""
    pid = aims.target("host_pid")
    command = Path(f"/proc/{pid}/cmdline")
    if not command.exists() or aims.target("host_command").encode() not in command.read_bytes():
        raise Refused(f"process {pid} is none of the host's")
    return f"process {pid}: {command.read_bytes()[:40]!r}"


@attack
def host_shared_memory(aims: Aims) -> str:
    """Attach to shared memory of the host."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.shmget(aims.target("shared_memory_key"), 0, 0)
    if found < 0:
        raise OSError(ctypes.get_errno(), "")
    return f"segment {found}"
