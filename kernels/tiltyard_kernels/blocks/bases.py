"""Products with a base weight that may be quantised, and a base's adapters.

A base weight is a plain (N, K) tensor or a QuantisedTensor; several in a row stand for one weight whose rows they are,
end to end or interleaved. An adapter pair (A, Q) joins x · Aᵀ · Q to a product: A (R, K) with the scale folded in, and
Q (R, N). Adapters of several bases that share their input are put side by side in A and block by block in Q by
`join_adapters`, which autograd takes apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    ranks = [adapter.a.shape[0] for _, adapter in found]
    places = [_columns(index, rows, is_interleaved) for index, _ in found]
    scales = [adapter.scale for _, adapter in found]
    matrices = [part for _, adapter in found for part in (adapter.a, adapter.b)]
    a, q = _Join.apply((ranks, places, scales, sum(rows), dtype), *matrices)  # type: ignore[no-untyped-call]
    return a, q


def _columns(index: int, rows: Sequence[int], is_interleaved: bool) -> slice:
    """Where the columns of base `index` are in the product of all."""
    if is_interleaved:
        return slice(index, None, len(rows))
    return slice(sum(rows[:index]), sum(rows[: index + 1]))


class _Join(torch.autograd.Function):
    """One operation for each adapter matrix and direction, which casts, scales and moves at once: adapters are small,
    and launching is most of what they cost."""

    @staticmethod
    def forward(ctx: Any, fixed: Any, *matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ranks, places, scales, columns, dtype = fixed
        ctx.fixed = fixed
        ctx.dtypes = [part.dtype for part in matrices]
        a = matrices[0].new_empty(sum(ranks), matrices[0].shape[1], dtype=dtype)
        fills = len(ranks) == 1 and places[0] == slice(0, columns)
        q = (a.new_empty if fills else a.new_zeros)(sum(ranks), columns)
        first = 0
        for index, (rank, place, scale) in enumerate(zip(ranks, places, scales, strict=True)):
            torch.mul(matrices[2 * index], scale, out=a[first : first + rank])
            q[first : first + rank, place].copy_(matrices[2 * index + 1].t())
            first += rank
        return a, q

    @staticmethod
    def backward(ctx: Any, da: torch.Tensor, dq: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ranks, places, scales, _, _ = ctx.fixed
        made: list[torch.Tensor | None] = [None]
        first = 0
        for index, (rank, place, scale) in enumerate(zip(ranks, places, scales, strict=True)):
            part = da[first : first + rank]
            made.append(torch.mul(part, scale, out=part.new_empty(part.shape, dtype=ctx.dtypes[2 * index])))
            made.append(dq[first : first + rank, place].t().to(ctx.dtypes[2 * index + 1]))
            first += rank
        return tuple(made)


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
