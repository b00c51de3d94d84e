"""Every defence of the sandbox, named once, with the attacks that it is for.

The flags themselves stand in `containers` and `builds`, the scans in `images`, `layers`, `dockerfile` and `results`.
`attacks` says which of these stops which attack, `selfcheck` proves it on an engine, and the tests in `tests/sandbox`
also lift each one and see the attack work.
"""

from enum import StrEnum


class Defence(StrEnum):
    """One measure; its value is what people read in a table."""

    # Of a container
    EMPTY_NETWORK = "empty network"  # calls home, the host's services, the metadata address, neighbours, DNS
    SECCOMP = "seccomp profile"  # vsock, raw sockets, io_uring, keyrings, BPF, userfaultfd, mounts, namespaces, ptrace
    NO_CAPABILITIES = "no capabilities"  # mounts, devices, modules, raw sockets, other people's files
    UNPRIVILEGED_USER = "uid 65532"  # an image's USER root, and all that root may do without a capability
    NO_NEW_PRIVILEGES = "no new privileges"  # set-user-id programs, file capabilities
    READ_ONLY_ROOT = "read-only root"  # filling the disk, changing the image, keeping state
    VOLUMES_COVERED = "covered volumes"  # filling the disk through VOLUME, which is writable all the same
    TMPFS_QUOTA = "tmpfs quota"  # filling memory with files: bytes and inodes of /tmp and /dev/shm
    NO_EXEC_SHM = "noexec /dev/shm"  # running what was written to shared memory
    MEMORY_LIMIT = "memory limit"  # memory bombs, by processes, files in tmpfs, memfd and shared memory
    PROCESS_LIMIT = "process limit"  # fork bombs, thread bombs
    CPU_LIMIT = "CPU limit"  # taking every core from the host and from other runs
    OPEN_FILES_LIMIT = "open files limit"
    FILE_SIZE_LIMIT = "file size limit"
    NO_CORE_DUMPS = "no core dumps"  # memory images on disk
    PRIVATE_IPC = "private IPC"  # the host's and neighbours' shared memory
    PRIVATE_PIDS = "private processes"  # seeing and signalling the host's processes (the engine's default)
    SYSTEM_PATHS = "system paths"  # /proc/sys, /sys, cgroups, kcore: read-only or masked (the engine's default)
    DEVICE_RULES = "device rules"  # the host's devices, by number (the engine's default)
    NO_HOST_MOUNTS = "no host mounts"  # the engine's socket, the suite, the results
    ENVIRONMENT = "environment taken over"  # LD_PRELOAD, NVIDIA_VISIBLE_DEVICES, and whatever else the host reads
    NO_HEALTHCHECK = "no health check"  # commands that the engine itself would start
    LOG_LIMIT = "log limit"  # filling the disk through standard output
    SIGKILL = "ended by SIGKILL"  # ignoring SIGTERM, STOPSIGNAL
    FRESH_CONTAINER = "fresh container"  # state kept from one suite to the next
    KERNEL_VERDICT = "the kernel's word"  # faked exit codes: the event, the flag and the code decide together
    # Of what comes out
    READ_WITHOUT_LINKS = "results read without links"  # results as links, pipes, sparse or huge files
    # Of an image archive
    LAYER_SCAN = "layer scan"  # paths that leave, devices, bombs
    TAGS_REWRITTEN = "tags rewritten"  # replacing an image of ours
    CONFIG_CHECKED = "configuration checked"  # VOLUME over system folders, no command
    # Of a build
    DOCKERFILE_REWRITTEN = "Dockerfile rewritten"  # foreign bases, addresses, front ends, triggers, labels
    BUILD_NO_NETWORK = "build without network"
    BUILD_NO_SECRETS = "build without secrets"
    BUILD_TIME = "build time limit"
    BUILD_MEMORY = "build memory limit"
    BUILD_PROCESSES = "build process limit"
    BUILD_DISK = "build disk limit"
    BUILD_LOG = "build log limit"
    ARCHIVE_SCAN = "archive scan"  # what an upload may hold
