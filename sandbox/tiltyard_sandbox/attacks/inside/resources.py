"""Attacks on what a machine has: processes, memory, time, files. Each stops a little beyond its limit by itself."""

import os
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Final

from tiltyard_sandbox.attacks.inside.base import Aims, Refused, attack

MIB: Final = 1 << 20
CPU_S: Final = 1.5
WORKERS: Final = 2
_QUOTA_V1: Final = ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us")
_QUOTA_V2: Final = "/sys/fs/cgroup/cpu.max"


@attack
def fork_bomb(aims: Aims) -> str:
    """More processes than allowed."""
    wanted = aims.limits["pids"] + 40
    made = 0
    try:
        while made < wanted:
            if os.fork() == 0:
                signal.pause()
            made += 1
    except OSError as error:
        raise Refused(f"{made} processes, then {error.strerror}") from None
    return f"{made} processes"


@attack
def thread_bomb(aims: Aims) -> str:
    """More threads than allowed."""
    wanted = aims.limits["pids"] + 40
    end = threading.Event()
    made = 0
    try:
        while made < wanted:
            threading.Thread(target=end.wait, daemon=True).start()
            made += 1
    except RuntimeError as error:
        raise Refused(f"{made} threads, then {error}") from None
    return f"{made} threads"


@attack
def memory_bomb(aims: Aims) -> str:
    """More memory than allowed; what goes on to live has proved nothing before it has touched every page."""
    held = []
    for _ in range(_beyond(aims)):
        held.append(b"x" * MIB)
    return f"{len(held)} MiB"


@attack
def memory_by_files(aims: Aims) -> str:
    """The same by files in /tmp."""
    return _filled_file("/tmp/bomb", aims)  # noqa: S108


@attack
def memory_by_shm(aims: Aims) -> str:
    """The same by files in /dev/shm."""
    return _filled_file("/dev/shm/bomb", aims)  # noqa: S108


def _filled_file(path: str, aims: Aims) -> str:
    parts = []
    try:
        for number in range(_beyond(aims)):
            parts.append(Path(f"{path}-{number}"))
            parts[-1].write_bytes(b"x" * MIB)
    except OSError as error:
        raise Refused(f"{len(parts)} MiB, then {error.strerror}") from None
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return f"{len(parts)} MiB"


@attack
def memory_by_memfd(aims: Aims) -> str:
    """The same by files that have no name and no folder."""
    opened = os.memfd_create("bomb")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    others = [opened]
    written = 0
    while written < _beyond(aims):
        try:
            os.write(others[-1], b"x" * MIB)
            written += 1
        except OSError:  # one file's size is limited: take another
            others.append(os.memfd_create("bomb"))
    return f"{written} MiB"


def _beyond(aims: Aims) -> int:
    return (aims.limits["memory_bytes"] >> 20) + 32


@attack
def all_cores(aims: Aims) -> str:
    """More processor time than allowed: two processes that do nothing but work."""
    begin = time.monotonic()
    children = []
    for _ in range(WORKERS):
        child = os.fork()
        if child == 0:
            while time.monotonic() < begin + CPU_S:
                pass
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    share = (used.ru_utime + used.ru_stime) / (time.monotonic() - begin)
    allowed = aims.limits["cpu_percent"] / 100
    if share > 1.25 * allowed + 0.05:
        return f"{share:.2f} cores"
    if _has_no_quota():  # a busy machine gave no more, and nothing else would have stopped it
        return f"{share:.2f} cores, and no quota"
    raise Refused(f"{share:.2f} cores")


def _has_no_quota() -> bool:
    for path in (*_QUOTA_V1, _QUOTA_V2):
        if Path(path).exists():
            return Path(path).read_text().split()[0] in {"-1", "max"}
    return False


@attack
def open_files(aims: Aims) -> str:
    """More open files than allowed."""
    wanted = aims.limits["open_files"] + 10
    opened = 0
    try:
        while opened < wanted:
            os.open("/dev/null", os.O_RDONLY)
            opened += 1
    except OSError as error:
        raise Refused(f"{opened} files, then {error.strerror}") from None
    return f"{opened} files"


@attack
def huge_file(_aims: Aims) -> str:
    """A file that says it is larger than anything here, and holds nothing."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = Path(f"/tmp/sparse-{os.getpid()}")  # noqa: S108
    try:
        with path.open("wb") as file:
            file.truncate(1 << 40)
        return "1 TiB"
    finally:
        path.unlink(missing_ok=True)


@attack
def raise_own_bounds(_aims: Aims) -> str:
    """Raise a bound on one's own resources."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard == resource.RLIM_INFINITY:
        return "core dumps have no bound"
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (hard + MIB, hard + MIB))
    except ValueError as error:  # which is how Python says EPERM here
        raise Refused(str(error)) from None
    return "raised"


@attack
def core_dump(_aims: Aims) -> str:
    """Leave an image of one's memory behind."""
    child = os.fork()
    if child == 0:
        os.chdir("/tmp")  # noqa: S108
        resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
        os.abort()
    _, status = os.waitpid(child, 0)
    for path in Path("/tmp").glob("core*"):  # noqa: S108
        path.unlink()
    if not os.WCOREDUMP(status):
        raise Refused("none was made")
    return "made"


@attack
def go_first(_aims: Aims) -> str:
    """Have the scheduler prefer one to everybody else."""
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    return "priority -20"


@attack
def real_time(_aims: Aims) -> str:
    """Be scheduled before everything that is not real-time."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "real-time"


@attack
def never_die(_aims: Aims) -> str:
    """Tell the kernel to kill others first when memory runs out."""
    Path("/proc/self/oom_score_adj").write_text("-1000")
    return "oom_score_adj -1000"
