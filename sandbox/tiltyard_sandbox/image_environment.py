"""Which of an image's variables a container keeps: not those that speak to programs of the host.

Where a container gets a GPU, programs of the host prepare it, with the image's variables in their own environment or
read from it. The loader's variables made such a program load the image's code (CVE-2025-23266: LD_PRELOAD, in a hook
whose working directory is the image's root), and the toolkit's say which devices, driver libraries and requirements a
container has. So the first are taken away and the second are ours. A server's own start command may set what it likes.
"""

import re
from collections.abc import Iterable
from typing import Final

GPU_CAPABILITIES: Final = ("compute", "utility")  # of the driver: no graphics, video or display
_LIBRARY_PATH: Final = "LD_LIBRARY_PATH"
_FOREIGN: Final = re.compile(
    r"NVIDIA_.*|LD_.*|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|NLSPATH|BASH_ENV|BASH_FUNC_.*", re.DOTALL
)
_SEPARATORS: Final = re.compile(r"[:;]")  # both are, for the loader
_PLACES_OF_A_PROCESS: Final = frozenset({"proc", "dev", "sys"})  # such as /proc/self/cwd
# Whatever the image says, and though nobody has asked what it says.
_OURS: Final[dict[str, str | None]] = {
    "LD_PRELOAD": "",
    "LD_AUDIT": "",
    "NVIDIA_VISIBLE_DEVICES": "void",
    "NVIDIA_IMEX_CHANNELS": "",
    "NVIDIA_GDS": "",
    "NVIDIA_MOFED": "",
}


def environment_of(image_env: Iterable[str], gpu_uuid: str | None) -> dict[str, str | None]:
    """What to tell the engine beside the image's own `image_env` ("NAME=value"); None takes a variable away."""
    found: dict[str, str | None] = {}
    for entry in image_env:
        name, _, value = entry.partition("=")
        if _FOREIGN.fullmatch(name):
            found[name] = None
        if name == _LIBRARY_PATH:
            found[name] = _library_path(value) or None
    found |= _OURS
    if gpu_uuid is not None:
        found["NVIDIA_VISIBLE_DEVICES"] = gpu_uuid
        found["NVIDIA_DRIVER_CAPABILITIES"] = ",".join(GPU_CAPABILITIES)
        # A requirement that nothing meets would pass for a fault of the host, to be tried again for nothing.
        found["NVIDIA_DISABLE_REQUIRE"] = "1"
    return found


def _library_path(value: str) -> str:
    """The folders that are the same for every process, and so lie in the container alone."""
    return ":".join(part for part in _SEPARATORS.split(value) if _is_fixed(part))


def _is_fixed(folder: str) -> bool:
    """Whether it is absolute without tokens ($ORIGIN) and ways up, and no place that is another for each process."""
    parts = [part for part in folder.split("/") if part not in {"", "."}]
    is_plain = folder.startswith("/") and "$" not in folder and ".." not in parts
    return is_plain and bool(parts) and parts[0] not in _PLACES_OF_A_PROCESS
