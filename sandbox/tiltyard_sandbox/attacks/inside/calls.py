"""Attacks by system calls: what no model server needs, and what has led out of containers before.

Numbers are those of x86-64; on other machines these attacks are absent. Where a call would do harm if it were let
through, its arguments are such that the kernel refuses them after it has asked for the right to make the call.
"""

import ctypes
import errno
import mmap
import os
import platform
import signal
import time
from typing import Final

from tiltyard_sandbox.attacks.inside.base import Absent, Aims, Refused, attack, reaches_the_kernel, system_call

_CALLS: Final = {
    "ptrace": 101,
    "personality": 135,
    "pivot_root": 155,
    "chroot": 161,
    "acct": 163,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "reboot": 169,
    "iopl": 172,
    "init_module": 175,
    "clock_settime": 227,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "unshare": 272,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "finit_module": 313,
    "bpf": 321,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "open_tree": 428,
    "fsopen": 430,
    "clone3": 435,
    "mount_setattr": 442,
    "clone": 56,
}
_NEWUSER: Final = 0x10000000
_NEWUTS: Final = 0x04000000
_AT_FDCWD: Final = -100
_ROOT_INODE: Final = 2  # of ext4


def _number(name: str) -> int:
    if platform.machine() != "x86_64":
        raise Absent(f"written for x86_64, not {platform.machine()}")
    return _CALLS[name]


@attack
def io_uring(_aims: Aims) -> str:
    """Rings that run file and network calls past a filter."""
    return reaches_the_kernel(_number("io_uring_setup"), 1, ctypes.create_string_buffer(120))


@attack
def add_key(_aims: Aims) -> str:
    """Keyrings belong to no namespace: keys of the host's users lie beside one's own."""
    return reaches_the_kernel(_number("add_key"), b"user", b"tiltyard", b"x", 1, -1)


@attack
def read_keyring(_aims: Aims) -> str:
    """See above; ask for the session's ring."""
    return reaches_the_kernel(_number("keyctl"), 0, -3, 0)


@attack
def request_key(_aims: Aims) -> str:
    """See above; have the kernel start a program of the host that finds a key."""
    return reaches_the_kernel(_number("request_key"), b"user", b"tiltyard", 0, 0)


@attack
def userfaultfd(_aims: Aims) -> str:
    """Stop the kernel in the middle of a copy: the tool of many exploits."""
    return reaches_the_kernel(_number("userfaultfd"), 1)


@attack
def bpf(_aims: Aims) -> str:
    """Load programs into the kernel: here, make a map of one element."""
    attributes = ctypes.create_string_buffer(128)
    ctypes.memmove(attributes, (ctypes.c_uint32 * 4)(2, 4, 4, 1), 16)  # an array of one value of four bytes
    return reaches_the_kernel(_number("bpf"), 0, attributes, 128)


@attack
def perf_events(_aims: Aims) -> str:
    """Watch what the processor does, for others too."""
    return reaches_the_kernel(_number("perf_event_open"), 0, 0, -1, -1, 0)


@attack
def ptrace(_aims: Aims) -> str:
    """Take another process over."""
    return reaches_the_kernel(_number("ptrace"), 0, 0, 0, 0)


@attack
def read_other_memory(_aims: Aims) -> str:
    """Read a process's memory from outside it."""
    return reaches_the_kernel(_number("process_vm_readv"), os.getppid(), 0, 0, 0, 0, 0)


@attack
def personality(_aims: Aims) -> str:
    """Switch address randomisation off, for programs that come after."""
    return reaches_the_kernel(_number("personality"), 0x0040000)


@attack
def unshare_user(_aims: Aims) -> str:
    """A user namespace, in which one is root and may speak to much more of the kernel."""
    return reaches_the_kernel(_number("unshare"), _NEWUSER)


@attack
def clone_user(_aims: Aims) -> str:
    """The same by clone, whose flags a filter can see."""
    child = system_call(_number("clone"), _NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "a process in a user namespace of its own"


@attack
def clone3_user(_aims: Aims) -> str:
    """The same by clone3, whose flags a filter cannot see."""
    arguments = (ctypes.c_uint64 * 8)(_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    try:
        child = system_call(_number("clone3"), arguments, ctypes.sizeof(arguments))
    except OSError as error:
        if error.errno == errno.ENOSYS:  # how a filter makes the C library use clone instead
            raise Refused("ENOSYS") from None
        raise
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "a process in a user namespace of its own"


@attack
def setns(_aims: Aims) -> str:
    """Enter a namespace through a file."""
    with open("/proc/self/ns/uts", "rb") as namespace:  # noqa: PTH123
        return reaches_the_kernel(_number("setns"), namespace.fileno(), _NEWUTS)


@attack
def old_entry(_aims: Aims) -> str:
    """The 32-bit entry into the kernel, where calls have other numbers and a filter for 64 bits may be blind."""
    _number("clone")
    # mov eax, 20 (getpid); int 0x80; ret
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return _positive(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


@attack
def x32_entry(_aims: Aims) -> str:
    """Another set of numbers for the same calls: x32's, here for getpid."""
    _number("clone")
    return _positive(system_call(0x40000000 | 39))


def _positive(result: int) -> str:
    if result <= 0:
        raise Absent("this kernel has no such entry")
    return f"the kernel answered {result}"


@attack
def mount(_aims: Aims) -> str:
    """Mount a file system."""
    return reaches_the_kernel(_number("mount"), b"none", b"/tmp", b"tmpfs", 0, 0)


@attack
def new_mount_calls(_aims: Aims) -> str:
    """The same by the calls of newer kernels."""
    return reaches_the_kernel(_number("fsopen"), b"tmpfs", 0)


@attack
def clone_a_mount(_aims: Aims) -> str:
    """Copy a part of the file tree, to attach it elsewhere."""
    return reaches_the_kernel(_number("open_tree"), _AT_FDCWD, b"/", 1)


@attack
def change_a_mount(_aims: Aims) -> str:
    """Make the read-only root writable."""
    attributes = (ctypes.c_uint64 * 4)(0, 0, 0, 0)  # nothing is changed, but the right to it is asked for
    return reaches_the_kernel(_number("mount_setattr"), _AT_FDCWD, b"/", 0, attributes, 32)


@attack
def umount(_aims: Aims) -> str:
    """Take away what covers a path."""
    return reaches_the_kernel(_number("umount2"), b"/tmp", 4)


@attack
def pivot_root(_aims: Aims) -> str:
    """Change the root."""
    return reaches_the_kernel(_number("pivot_root"), b"/nowhere", b"/nowhere")


@attack
def chroot(_aims: Aims) -> str:
    """See above; with an open directory, a way out of a simpler jail."""
    return reaches_the_kernel(_number("chroot"), b"/")


@attack
def open_by_handle(_aims: Aims) -> str:
    """Open a file of the host by its number, through any mount of the host's disk ("shocker", 2014)."""
    _number("clone")
    handle = (ctypes.c_uint32 * 4)(8, 1, _ROOT_INODE, 0)  # bytes, type, inode, generation
    with open("/etc/hostname", "rb") as mounted:  # noqa: PTH123  a file of the host's disk
        opened = system_call(_number("open_by_handle_at"), mounted.fileno(), handle, os.O_RDONLY)
    return f"the host's root holds {len(os.listdir(opened))} entries"  # noqa: PTH208


@attack
def load_module(_aims: Aims) -> str:
    """Load code into the kernel."""
    return reaches_the_kernel(_number("finit_module"), -1, b"", 0)


@attack
def kexec(_aims: Aims) -> str:
    """Put another kernel in place of this one."""
    return reaches_the_kernel(_number("kexec_load"), 0, 17, 0, 0)  # more segments than there can be


@attack
def reboot(_aims: Aims) -> str:
    """Switch the machine off."""
    return reaches_the_kernel(_number("reboot"), 0, 0, 0, 0)  # not the numbers that mean it


@attack
def swapon(_aims: Aims) -> str:
    """Have the kernel swap to a file of one's own."""
    return reaches_the_kernel(_number("swapon"), b"/nowhere", 0)


@attack
def accounting(_aims: Aims) -> str:
    """Have the kernel write about every process."""
    return reaches_the_kernel(_number("acct"), b"/nowhere")


@attack
def hardware_ports(_aims: Aims) -> str:
    """Speak to hardware past the kernel."""
    return reaches_the_kernel(_number("iopl"), 1)


@attack
def watch_files(_aims: Aims) -> str:
    """Be told of, and decide on, every access to files."""
    return reaches_the_kernel(_number("fanotify_init"), 0, 0)


@attack
def set_clock(_aims: Aims) -> str:
    """Move the machine's clock, here to the time that it has."""
    now = time.time_ns()
    return reaches_the_kernel(_number("clock_settime"), 0, (ctypes.c_int64 * 2)(now // 10**9, now % 10**9))
