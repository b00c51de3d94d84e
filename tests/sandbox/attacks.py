"""Run inside a container: try what a hostile server would try, and print one JSON object with what came of it.

Each probe's outcome is "done" when the attack worked, or the name of the error that stopped it. The same file runs
in the sandbox and, as a control, in an ordinary container, where the attacks do work.
"""

import ctypes
import errno
import json
import os
import socket
import sys
import time
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
SYSCALLS = {
    "io_uring": 425,
    "bpf": 321,
    "userfaultfd": 323,
    "keyctl": 250,
    "ptrace": 101,
    "mount": 165,
    "unshare_user": 272,
}


def syscall(name):
    arguments = {"unshare_user": (0x10000000,)}.get(name, (0, 0, 0, 0))
    if LIBC.syscall(SYSCALLS[name], *arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def connect(host, port):
    socket.create_connection((host, port), timeout=2).close()


def write(path):
    Path(path).write_text("x")


def fill(folder):
    """Bytes that fit, in files of 1 MiB so that no limit on one file's size stops it first."""
    written = 0
    try:
        while written < 64 << 20:
            Path(f"{folder}/fill{written}").write_bytes(b"x" * (1 << 20))
            written += 1 << 20
    except OSError as error:
        return written, errno.errorcode[error.errno]
    finally:
        for path in Path(folder).glob("fill*"):
            path.unlink()
    return written, "done"


def inodes(folder):
    made = 0
    try:
        while made < 5000:
            Path(f"{folder}/i{made}").touch()
            made += 1
    except OSError as error:
        return made, errno.errorcode[error.errno]
    return made, "done"


def attempt(action, *arguments):
    try:
        outcome = action(*arguments)
    except socket.gaierror:
        return "no DNS"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done" if outcome is None else outcome


def probes(gateway, port):
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found = {
        "uid": os.getuid(),
        "capabilities": status["CapBnd"].strip(),
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "gateway": attempt(connect, gateway, port),
        "metadata": attempt(connect, "169.254.169.254", 80),
        "dns": attempt(connect, "example.org", 80),
        "vsock": attempt(lambda: socket.socket(40, socket.SOCK_STREAM).close()),
        "packet": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
        "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()),
        "root": attempt(write, "/planted"),
        "etc": attempt(write, "/etc/planted"),
        "volume_write": attempt(fill, "/data") if Path("/data").is_dir() else None,
        "tmp": attempt(fill, "/tmp"),
        "shm": attempt(fill, "/dev/shm"),
        "tmp_inodes": attempt(inodes, "/tmp"),
        "proc_sys": attempt(write, "/proc/sys/kernel/core_pattern"),
        "sysfs": attempt(write, "/sys/kernel/mm/transparent_hugepage/enabled"),
        "docker_socket": Path("/var/run/docker.sock").exists(),
        "preload": os.environ.get("LD_PRELOAD"),
        "nvidia": os.environ.get("NVIDIA_VISIBLE_DEVICES"),
        "port": os.environ.get("TILTYARD_PORT"),
        "home": os.environ.get("HOME"),
        "mknod": attempt(lambda: os.mknod("/tmp/null", 0o20666, os.makedev(1, 3))),
    }
    found.update({name: attempt(syscall, name) for name in SYSCALLS})
    return found


if __name__ == "__main__":
    GATEWAY, _, PORT = os.environ.get("PROBE_TARGET", "172.17.0.1:9").partition(":")
    print(  # noqa: T201  the findings go to the container's log
        json.dumps(probes(GATEWAY, int(PORT))), flush=True
    )
    if "--once" not in sys.argv:
        time.sleep(3600)
