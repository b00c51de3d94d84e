"""Which defences stop which attack. Each of those named stops it *alone*: the tests lift all but one of them in turn,
and all of them at once, and then it works. `inside` holds the attacks, by the same names.
"""

from dataclasses import dataclass
from typing import Final

from tiltyard_sandbox.defences import Defence

_ROOT_ONLY: Final = (Defence.SECCOMP, Defence.NO_CAPABILITIES, Defence.UNPRIVILEGED_USER)


@dataclass(frozen=True)
class Attack:
    """One attack from inside a container."""

    name: str
    tries: str
    stopped_by: tuple[Defence, ...]  # each of them alone
    no_control: str = ""  # why nobody lifts the defences to see it work


def _by(*defences: Defence, **attacks: str) -> tuple[Attack, ...]:
    return tuple(Attack(name, tries, defences) for name, tries in attacks.items())


ATTACKS: Final[tuple[Attack, ...]] = (
    *_by(
        Defence.EMPTY_NETWORK,
        gateway="reach a service of the host at the gateway's address",
        host_loopback="reach a service that the host offers to itself",
        neighbour="reach another container",
        metadata="reach the metadata address 169.254.169.254",
        datagram="send a datagram away",
        dns="send a message away inside a DNS query",
        interfaces="find an interface beside the loopback",
        abstract_socket="reach an abstract Unix socket of the host",
    ),
    *_by(
        Defence.SECCOMP,
        vsock="open a socket to the hypervisor",
        netlink_events="listen to the kernel's device events",
        kernel_crypto="open a socket to the kernel's cryptography",
        io_uring="set up an io_uring",
        add_key="add a key to a keyring",
        read_keyring="ask for a keyring",
        request_key="have the kernel look for a key",
        userfaultfd="stop the kernel in page faults",
        perf_events="open performance events",
        ptrace="trace a process",
        read_other_memory="read a process's memory",
        personality="change the execution domain",
        unshare_user="unshare a user namespace",
        clone_user="clone into a user namespace",
        clone3_user="the same by clone3",
        old_entry="call the kernel by its 32-bit entry",
        x32_entry="call the kernel by x32's numbers",
    ),
    *_by(
        *_ROOT_ONLY,
        raw_socket="open a raw socket",
        packet_socket="open a packet socket",
        express_socket="open an AF_XDP socket",
        bpf="make a BPF map",
        setns="enter a namespace",
        mount="mount a file system",
        new_mount_calls="the same by fsopen",
        clone_a_mount="copy a mount by open_tree",
        change_a_mount="make a mount writable by mount_setattr",
        umount="unmount",
        pivot_root="change the root",
        chroot="change the root directory",
        open_by_handle="open the host's root by its inode",
        load_module="load a kernel module",
        kexec="load another kernel",
        reboot="restart the machine",
        swapon="swap to a file",
        accounting="turn process accounting on",
        hardware_ports="get at hardware ports",
        watch_files="decide on every access to files",
    ),
    *_by(Defence.NO_CAPABILITIES, capabilities="find a capability in the bounding set"),
    *_by(
        Defence.NO_CAPABILITIES,
        Defence.UNPRIVILEGED_USER,
        make_device="make a node for the host's disk",
        go_first="take priority over everybody",
        never_die="be the last that runs out of memory",
    ),
    *_by(Defence.UNPRIVILEGED_USER, image_user="be root because the image says so"),
    *_by(Defence.NO_NEW_PRIVILEGES, set_user_id="become root by a set-user-id program"),
    *_by(Defence.NO_NEW_PRIVILEGES, Defence.NO_CAPABILITIES, file_capabilities="gain a capability by a file"),
    *_by(Defence.ENVIRONMENT, preload="preload a library by ENV", all_gpus="see all GPUs by ENV"),
    *_by(Defence.READ_ONLY_ROOT, Defence.UNPRIVILEGED_USER, write_root="change the image's files"),
    *_by(Defence.READ_ONLY_ROOT, fill_root="fill the disk through an open folder"),
    *_by(Defence.VOLUMES_COVERED, fill_volume="fill the disk through a VOLUME"),
    *_by(
        Defence.TMPFS_QUOTA,
        fill_tmp="put more bytes into /tmp than allowed",
        fill_shm="put more bytes into /dev/shm than allowed",
        tmp_inodes="put more files into /tmp than allowed",
    ),
    *_by(Defence.NO_EXEC_SHM, run_from_shm="run a program from /dev/shm"),
    *_by(Defence.NO_HOST_MOUNTS, host_files="see suite and results"),
    *_by(Defence.NO_HOST_MOUNTS, Defence.UNPRIVILEGED_USER, engine_socket="speak to the engine"),
    *_by(Defence.PRIVATE_PIDS, host_processes="see the host's processes"),
    *_by(Defence.PRIVATE_IPC, host_shared_memory="attach to the host's shared memory"),
    *_by(Defence.PROCESS_LIMIT, fork_bomb="fork without end", thread_bomb="start threads without end"),
    *_by(
        Defence.MEMORY_LIMIT,
        memory_bomb="take memory without end",
        memory_by_memfd="the same by nameless files",
    ),
    *_by(
        Defence.MEMORY_LIMIT,
        Defence.TMPFS_QUOTA,
        memory_by_files="the same by files in /tmp",
        memory_by_shm="the same by files in /dev/shm",
    ),
    *_by(Defence.CPU_LIMIT, all_cores="take more processor time than allowed"),
    *_by(Defence.OPEN_FILES_LIMIT, open_files="open more files than allowed"),
    *_by(Defence.FILE_SIZE_LIMIT, huge_file="make a sparse file of 1 TiB"),
    *_by(Defence.NO_CORE_DUMPS, core_dump="leave a core dump"),
    *_by(
        Defence.SYSTEM_PATHS,
        Defence.UNPRIVILEGED_USER,
        core_pattern="name the program that the host starts after a crash",
        sysrq="command the kernel by sysrq",
        sysfs="change /sys",
        own_limits="raise the own memory limit in its control group",
        release_agent="have the host start a program when a group is empty",
        kernel_memory="read /proc/kcore",
    ),
    Attack(
        "real_time",
        "be scheduled in real time",
        (Defence.NO_CAPABILITIES, Defence.UNPRIVILEGED_USER),
        "a real-time process could hold a core of this host",
    ),
    Attack(
        "set_clock",
        "set the machine's clock",
        _ROOT_ONLY,
        "it would move the clock of this host",
    ),
    Attack(
        "open_device",
        "read the kernel's messages through a node in /dev",
        (Defence.DEVICE_RULES, Defence.NO_CAPABILITIES, Defence.UNPRIVILEGED_USER),
    ),
    Attack(
        "raise_own_bounds",
        "raise a hard limit",
        (Defence.NO_CAPABILITIES, Defence.UNPRIVILEGED_USER),
    ),
    Attack(
        "become_root",
        "ask for uid 0",
        (Defence.UNPRIVILEGED_USER,),
    ),
    # Last, so that the engine had time to run it.
    *_by(Defence.NO_HEALTHCHECK, health_check="have the engine run a command"),
)
BY_NAME: Final = {attack.name: attack for attack in ATTACKS}
