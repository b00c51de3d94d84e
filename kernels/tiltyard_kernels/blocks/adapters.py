"""Adapters of the bases of one product, joined to it as P · Q, and the ways in which rows reach them.

Several bases share an input x (queries, keys and values, or gate and up), and each may have several adapters. All their
A lie end to end in one A (R, K), scales folded in, and their B, transposed, in blocks of one Q (R, N): what they add is
P · Q with P = x · Aᵀ. `Route` says what stands between x and P: nothing; a choice, each row having its own adapters
(`chosen`); or dropout, each adapter seeing x through a mask of its own, as peft's linears do.

With dropout the gradient of x is dz · W + Σ mask ⊙ (dp · A): the masks stand between the adapters' part and the
accumulator, so that part comes from a pass of its own, `extra`, which the product's epilogue adds.

Dimension letters: M rows, K columns of x, N columns of the product, R the sum of all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tiltyard_kernels.blocks.dropout import drop, dropped_gradients, dropped_projection
from tiltyard_kernels.gemm.execute import runs_in_triton
from tiltyard_kernels.gemm.ops import RANK_MAX

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Adapter:
    """One LoRA adapter: a (r, K), b (N, r), its scale, and the rate at which it does not see numbers of x."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    dropout: float = 0.0


@dataclass(frozen=True)
class Joined:
    """What `join_adapters` makes: a (R, K), q (R, N), and each adapter's rank and dropout.

    chosen (M, R), ones and zeros in a's type: which row goes through which adapters, if not all through all. magnitude
    (N,) makes it DoRA, as `magnitude` describes; has_magnitude (N,) says where it is, if not everywhere.
    """

    a: torch.Tensor
    q: torch.Tensor
    ranks: tuple[int, ...]
    rates: tuple[float, ...]
    chosen: torch.Tensor | None = None
    magnitude: torch.Tensor | None = None
    has_magnitude: torch.Tensor | None = None


def join_adapters(
    adapters: Sequence[Sequence[Adapter]], rows: Sequence[int], dtype: torch.dtype, *, is_interleaved: bool = False
) -> Joined | None:
    """The adapters of each of several bases of so many `rows`, in `dtype`; None without any.

    Raises ValueError where all ranks together are more than a product takes.
    """
    found = [(index, adapter) for index, several in enumerate(adapters) for adapter in several]
    if not found:
        return None
    ranks = tuple(adapter.a.shape[0] for _, adapter in found)
    if sum(ranks) > RANK_MAX:
        raise ValueError(f"the adapters of one product have rank {sum(ranks)} together; at most {RANK_MAX} fit")
    places = [_columns(index, rows, is_interleaved) for index, _ in found]
    scales = [adapter.scale for _, adapter in found]
    matrices = [part for _, adapter in found for part in (adapter.a, adapter.b)]
    a, q = _Join.apply((ranks, places, scales, sum(rows), dtype), *matrices)  # type: ignore[no-untyped-call]
    return Joined(a, q, ranks, tuple(adapter.dropout for _, adapter in found))


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
        # In memory the transpose, as a weight lies in a forward: the mainloop then reads Q as more columns of it.
        q = (a.new_empty if fills else a.new_zeros)(columns, sum(ranks))
        first = 0
        for index, (rank, place, scale) in enumerate(zip(ranks, places, scales, strict=True)):
            torch.mul(matrices[2 * index], scale, out=a[first : first + rank])
            q[place, first : first + rank].copy_(matrices[2 * index + 1])
            first += rank
        return a, q.t()

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


@dataclass(frozen=True)
class Route:
    """How the rows of one call reach its adapters. Make it with `route`."""

    ranks: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()  # empty without dropout
    chosen: torch.Tensor | None = None
    seeds: torch.Tensor | None = None  # of the masks, where kernels draw them
    kept: tuple[torch.Tensor, ...] = ()  # else the masks themselves: (M, K) each, 0 or 1 / (1 − rate)

    def project(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """P (M, R) of x (M, K) and A (R, K)."""
        if self.seeds is not None:
            p = dropped_projection(x, a, self.seeds, self.ranks, self.rates)
        elif self.kept:
            parts = torch.split(a, list(self.ranks))
            p = torch.cat([(x * kept) @ part.t() for kept, part in zip(self.kept, parts, strict=True)], 1)
        else:
            p = x @ a.t()
        return p if self.chosen is None else p * self.chosen

    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        """x (M, K) as the first adapter sees it. With a gradient for x, what comes back through the mask."""
        if self.seeds is not None:
            return drop(x, self.seeds, 0, self.rates[0])
        return x * self.kept[0] if self.kept else x

    def pulled(self, dz: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """dP (M, R) of dz (M, N)."""
        dp = dz @ q.t()
        return dp if self.chosen is None else dp * self.chosen

    def input_gradient(
        self, dp: torch.Tensor, a: torch.Tensor, x: torch.Tensor | None
    ) -> tuple[Pair | None, torch.Tensor | None, torch.Tensor | None]:
        """(pair, extra, da): what joins dz · W in the accumulator, or what its epilogue adds (M, K), for x's gradient;
        and A's, if x is given."""
        if not self.rates:
            return (dp, a), None, self.a_gradient(dp, a, x)
        if self.seeds is not None:
            extra, da = dropped_gradients(dp, x, a, self.seeds, self.ranks, self.rates, has_dx=True)
            return None, extra, da
        parts = zip(self.kept, torch.split(dp, list(self.ranks), 1), torch.split(a, list(self.ranks)), strict=True)
        extra = torch.stack([kept * (pulled @ part) for kept, pulled, part in parts]).sum(0)
        return None, extra, self.a_gradient(dp, a, x)

    def a_gradient(self, dp: torch.Tensor, a: torch.Tensor, x: torch.Tensor | None) -> torch.Tensor | None:
        """dA (R, K) alone; None without x."""
        if x is None:
            return None
        if not self.rates:
            return dp.t() @ x
        if self.seeds is not None:
            return dropped_gradients(dp, x, a, self.seeds, self.ranks, self.rates, has_dx=False)[1]
        parts = zip(self.kept, torch.split(dp, list(self.ranks), 1), strict=True)
        return torch.cat([pulled.t() @ (x * kept) for kept, pulled in parts])


def route(joined: Joined | None, x: torch.Tensor, dtype: torch.dtype) -> Route:
    """The way for the rows of x (M, K) that the product will see in `dtype`. Masks are drawn here.

    Where kernels run, one seed for each adapter comes from torch's generator of the device. Elsewhere the masks do, as
    `torch.nn.functional.dropout` draws them, and so the same as peft's where it calls its adapters in this order.
    """
    if joined is None:
        return Route()
    plain = Route(joined.ranks, chosen=joined.chosen)
    if not any(joined.rates):
        return plain
    if runs_in_triton(torch.empty(0, dtype=dtype, device=x.device)):
        seeds = torch.randint(2**63 - 1, (len(joined.ranks),), device=x.device)
        return replace(plain, rates=joined.rates, seeds=seeds)
    ones = torch.ones(x.shape[0], joined.a.shape[1], dtype=dtype, device=x.device)
    kept = tuple(torch.nn.functional.dropout(ones, rate) for rate in joined.rates)
    return replace(plain, rates=joined.rates, kept=kept)
