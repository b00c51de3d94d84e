"""Compiled kernels that are shipped: made once for a model and a GPU architecture, used by every fresh process.

    python -m tiltyard_kernels.cache build --gpu nvidia-h200 --out kernels.zip      needs no GPU, takes minutes
    python -m tiltyard_kernels.cache use kernels.zip                                into Triton's cache

An archive is for one architecture, one Triton and one version of this library, and is refused with any other. It holds
machine code for the GPU and its description, nothing that runs on the host; it is checked as if it were hostile.
"""

from tiltyard_kernels.cache.archive import CacheError, use

__all__ = ["CacheError", "use"]
