"""Products with a base weight that may be quantised.

A base weight is a plain (N, K) tensor or a QuantisedTensor; several in a row stand for one weight whose rows they are,
end to end or interleaved. An adapters' pair (P, Q) joins P · Q to a product: see `adapters`.
"""

from __future__ import annotations

import torch

from tiltyard_kernels.epilogue import Epilogue
from tiltyard_kernels.gemm import LowRank, gemm
from tiltyard_kernels.gemm.ops import runs_directly
from tiltyard_kernels.quantise import fp8
from tiltyard_kernels.quantise.linear import dequantised, dequantised_together, multiplies_by_fp8
from tiltyard_kernels.quantise.tensor import QuantisedTensor

Base = torch.Tensor | tuple[torch.Tensor, ...]


def dense(base: Base, dtype: torch.dtype, *, is_interleaved: bool = False) -> torch.Tensor:
    """The base as one plain matrix of `dtype`: itself, or widened into a scratch matrix."""
    if isinstance(base, QuantisedTensor):
        return dequantised(base, dtype)
    if isinstance(base, torch.Tensor):
        return base.to(dtype)
    if all(isinstance(part, QuantisedTensor) for part in base) and runs_directly([part.values for part in base]):  # type: ignore[misc]
        return dequantised_together(base, dtype, is_interleaved=is_interleaved)  # type: ignore[arg-type,no-any-return]
    wide = [dequantised(part, dtype) if isinstance(part, QuantisedTensor) else part.to(dtype) for part in base]
    return torch.stack(wide, 1).flatten(0, 1) if is_interleaved else torch.cat(wide)


def product(
    x: torch.Tensor,
    b: torch.Tensor,
    program: Epilogue,
    pair: tuple[torch.Tensor, torch.Tensor] | None,
    *,
    out_dtype: torch.dtype | None = None,
    **operands: torch.Tensor | float,
) -> dict[str, torch.Tensor]:
    """`program` over x · b, and P · Q if a pair (P, Q) is given."""
    low_rank = None if pair is None else LowRank(*pair)
    return gemm(x, b, program, low_rank=low_rank, out_dtype=out_dtype, **operands)  # type: ignore[arg-type]  # by name


def forward_product(
    x: torch.Tensor,
    base: Base,
    program: Epilogue,
    pair: tuple[torch.Tensor, torch.Tensor] | None,
    /,
    *,
    is_interleaved: bool = False,
    out_dtype: torch.dtype | None = None,
    **operands: torch.Tensor | float,
) -> dict[str, torch.Tensor]:
    """`program` over x · baseᵀ; fp8 multiplies fp8 where the base asks for it, and is widened else."""
    weights = _coded(x, base)
    if weights is not None:
        low_rank = None if pair is None else LowRank(*pair)
        return fp8.forward_product(
            x, weights, program, low_rank, is_interleaved=is_interleaved, out_dtype=out_dtype, **operands
        )
    weight = dense(base, x.dtype, is_interleaved=is_interleaved)
    return product(x, weight.t(), program, pair, out_dtype=out_dtype, **operands)


def gradient_product(
    dy: torch.Tensor,
    base: Base,
    program: Epilogue,
    pair: tuple[torch.Tensor, torch.Tensor] | None,
    /,
    *,
    is_interleaved: bool = False,
    out_dtype: torch.dtype | None = None,
    **operands: torch.Tensor | float,
) -> dict[str, torch.Tensor]:
    """`program` over dy · base, likewise."""
    weights = _coded(dy, base)
    if weights is not None:
        low_rank = None if pair is None else LowRank(*pair)
        return fp8.gradient_product(
            dy, weights, program, low_rank, is_interleaved=is_interleaved, out_dtype=out_dtype, **operands
        )
    weight = dense(base, dy.dtype, is_interleaved=is_interleaved)
    return product(dy, weight, program, pair, out_dtype=out_dtype, **operands)


def _coded(x: torch.Tensor, base: Base) -> list[fp8.Coded] | None:
    """The base's codes and scales, if fp8 is to multiply fp8."""
    parts = base if isinstance(base, tuple) else (base,)
    found: list[fp8.Coded] = []
    for part in parts:
        if not isinstance(part, QuantisedTensor) or not multiplies_by_fp8(x, part.packed()):
            return None
        found.append((part.values, part.scale))
    return found
