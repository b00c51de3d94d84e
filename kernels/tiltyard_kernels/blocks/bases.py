"""Products with a base weight that may be quantised, and a base's adapters.

A base weight is a plain (N, K) tensor or a QuantisedTensor; several in a row stand for one weight whose rows they are,
end to end or interleaved. An adapter pair (A, Q) joins x · Aᵀ · Q to a product: A (R, K) with the scale folded in, and
Q (R, N). Adapters of several bases that share their input are put side by side in A and block by block in Q by
`join_adapters`, which autograd takes apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tiltyard_kernels.epilogue import Epilogue
from tiltyard_kernels.gemm import LowRank, gemm
from tiltyard_kernels.gemm.ops import runs_directly
from tiltyard_kernels.quantise.linear import dequantised, dequantised_together
from tiltyard_kernels.quantise.tensor import QuantisedTensor

Base = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Adapter:
    """One LoRA adapter: a (r, K), b (N, r), and its scale."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float


def join_adapters(
    adapters: Sequence[Adapter | None], rows: Sequence[int], dtype: torch.dtype, *, is_interleaved: bool = False
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(A, Q) of the adapters of several bases of so many `rows`, in `dtype`; None without any."""
    found = [(index, adapter) for index, adapter in enumerate(adapters) if adapter is not None]
    if not found:
        return None
    a = torch.cat([(adapter.a * adapter.scale).to(dtype) for _, adapter in found])
    total = sum(rows)
    pieces = []
    for index, adapter in found:
        q = adapter.b.to(dtype).t()
        if len(rows) == 1:
            pieces.append(q)
        elif is_interleaved:
            spread = [q if place == index else torch.zeros_like(q) for place in range(len(rows))]
            pieces.append(torch.stack(spread, 2).flatten(1))
        else:
            before = sum(rows[:index])
            pieces.append(torch.nn.functional.pad(q, (before, total - before - rows[index])))
    return a, torch.cat(pieces)


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
