"""What a submission may use: one frozen record, read from a competition's YAML, checked when it is made."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Self

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

_UNITS: Final = {"": 1, "kib": KIB, "mib": MIB, "gib": GIB, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_CPUSET: Final = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", re.ASCII)
BUILD_HOSTS_MAX: Final = 64
# As DNS has them (RFC 1123), and no addresses: the last label begins with a letter.
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII
)
_RUNTIME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}", re.ASCII)
_GPU_UUID: Final = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{8,80}")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of one submission: its archive, its build and its container. Times in seconds, sizes in bytes.

    Raises ValueError, naming the field and the allowed range, when a value makes no sense.
    """

    memory_bytes: int = 4 * GIB  # memory and swap together; tmpfs and shared memory count towards it
    cpus: float = 2.0
    pids: int = 256
    open_files: int = 4096
    shm_bytes: int = 256 * MIB
    tmpfs_bytes: int = 512 * MIB
    tmpfs_inodes: int = 65_536
    log_bytes: int = 1 * MIB
    build_s: float = 600.0
    start_s: float = 120.0
    evaluate_s: float = 1800.0
    image_bytes_max: int = 16 * GIB  # uncompressed
    archive_bytes_max: int = 2 * GIB
    gpu_uuid: str | None = None
    cpuset: str | None = None  # the cores that it may use, as the kernel writes lists: "0-3,6"
    build_hosts: tuple[str, ...] = ()  # that RUN steps may reach, through a proxy: see `build_proxy`
    runtime: str | None = None  # by the name that the engine has for it, such as "runsc"; None: the engine's default

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, not {value!r}.")
            if not low <= value <= high:  # also refuses NaN
                raise ValueError(f"{name} must lie between {low:g} and {high:g}, not {value!r}.")
            if name not in _FRACTIONAL and not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, not {value!r}.")
        if self.gpu_uuid is not None and not _GPU_UUID.fullmatch(self.gpu_uuid):
            raise ValueError(f"gpu_uuid must look like GPU-… or MIG-…, not {self.gpu_uuid!r}.")
        if self.cpuset is not None and not _CPUSET.fullmatch(self.cpuset):
            raise ValueError(f"cpuset must be a list of cores such as 0-3,6, not {self.cpuset!r}.")
        if len(self.build_hosts) > BUILD_HOSTS_MAX or not all(_is_host_name(host) for host in self.build_hosts):
            raise ValueError(
                f"build_hosts must be at most {BUILD_HOSTS_MAX} host names in lower case, such as packages.example.org."
            )
        if self.runtime is not None and not _RUNTIME.fullmatch(self.runtime):
            raise ValueError(f"runtime must be a name that the engine knows, such as runsc, not {self.runtime!r}.")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Self:
        """Limits from a competition's YAML mapping; sizes may be written "512 MiB". Fields left out keep defaults.

        Raises ValueError naming the field on an unknown name or a value that makes no sense.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(str(name) for name in values if name not in known)
        if unknown:
            raise ValueError(f"Unknown limit {unknown[0]!r}. Known: {', '.join(sorted(known))}.")
        return cls(**{name: _parsed(name, value) for name, value in values.items()})  # type: ignore[arg-type]


_FRACTIONAL: Final = frozenset({"cpus", "build_s", "start_s", "evaluate_s"})
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "memory_bytes": (16 * MIB, 4096 * GIB),
    "cpus": (0.05, 1024),
    "pids": (8, 65_536),
    "open_files": (64, 1_048_576),
    "shm_bytes": (1 * MIB, 1024 * GIB),
    "tmpfs_bytes": (1 * MIB, 1024 * GIB),
    "tmpfs_inodes": (64, 100_000_000),
    "log_bytes": (64 * KIB, 1 * GIB),
    "build_s": (1, 86_400),
    "start_s": (1, 86_400),
    "evaluate_s": (1, 604_800),
    "image_bytes_max": (1 * MIB, 4096 * GIB),
    "archive_bytes_max": (1 * KIB, 4096 * GIB),
}


def parse_size(text: str) -> int:
    """Bytes in a text such as "512 MiB", "1.5GB" or "4096"; raises ValueError on anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is not a size: write a number with KiB, MiB, GiB, KB, MB or GB.")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _is_host_name(value: object) -> bool:
    return isinstance(value, str) and _HOST_NAME.fullmatch(value) is not None


def _parsed(name: str, value: object) -> object:
    if name == "build_hosts" and isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and "bytes" in name:
        return parse_size(value)
    return value
