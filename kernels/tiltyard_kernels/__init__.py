"""GPU kernels for transformer blocks and LoRA fine-tuning. `patch(model)` is the short way in."""

from __future__ import annotations

from typing import Any

__all__ = ["Block", "Patched", "patch", "unpatch"]


def __getattr__(name: str) -> Any:
    """On demand, since a part such as `gemm` needs no more than itself."""
    if name == "Block":
        from tiltyard_kernels.blocks.decoder import Block  # noqa: PLC0415  # on demand

        return Block
    if name in __all__:
        from tiltyard_kernels import patching  # noqa: PLC0415  # on demand

        return getattr(patching, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
