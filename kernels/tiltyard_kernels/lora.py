"""LoRA linears: y = x · Wᵀ + s · (x · Aᵀ) · Bᵀ in one GEMM, and one for dx.

The adapter's second product joins the base's accumulator as a last block of the reduction, forward (P = s · x · Aᵀ,
Q = Bᵀ) and backward (P = s · dy · B, Q = A): the sum is never rounded between, and y and dx are written once. There is
no dW for the base, which may be quantised. What remains are products with a side of length r, which read x or dy once.

With dropout the adapter sees x through a mask, which the thin products draw again from a seed: x is read, and nothing
of its size is written forward. Backward the mask stands between the adapter's part of dx and the accumulator, so that
part is a pass of its own, which the product's epilogue adds.

LoRA: Hu et al., arXiv 2106.09685; rsLoRA's scale: Kalajdzievski, arXiv 2312.03732.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tiltyard_kernels.blocks.adapters import Adapter, Joined, Route, join_adapters, route
from tiltyard_kernels.blocks.bases import gradient_product
from tiltyard_kernels.blocks.programs import biased, residual
from tiltyard_kernels.gemm import LowRank, gemm, matmul
from tiltyard_kernels.gemm.ops import RANK_MAX
from tiltyard_kernels.quantise.linear import packed_gradient, packed_matmul
from tiltyard_kernels.quantise.tensor import QuantisedTensor

__all__ = [
    "Adapter",
    "adapted_linear",
    "lora_linear",
    "lora_linear_reference",
    "lora_scale",
    "multi_lora_linear",
]


def lora_scale(alpha: float, rank: int, *, rank_stabilised: bool = False) -> float:
    """s = alpha / r, or alpha / √r for rsLoRA."""
    if rank < 1:
        raise ValueError(f"the rank is {rank}; it must be at least 1")
    return alpha / math.sqrt(rank) if rank_stabilised else alpha / rank


def lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    lora_a: torch.Tensor,
    lora_b: torch.Tensor,
    *,
    scale: float,
    bias: torch.Tensor | None = None,
    dropout: float = 0.0,
    training: bool = True,
) -> torch.Tensor:
    """x · weightᵀ + bias + scale · dropout(x) · lora_aᵀ · lora_bᵀ, differentiable in all but weight, which is frozen.

    x (…, K); weight (N, K), plain or quantised; lora_a (r, K); lora_b (N, r), r up to 512. Adapters of another dtype
    are rounded to x's, and their gradients come in their own. Under autocast everything runs in its dtype. Where
    kernels run, the mask is drawn from a seed that torch's generator of the device gives (`blocks.dropout`), elsewhere
    by torch's own dropout; either way `torch.manual_seed` and activation checkpointing repeat it.
    """
    adapter = Adapter(lora_a, lora_b, scale, dropout if training else 0.0)
    check_adapter(x, weight, adapter)
    x, weight = cast_for_autocast(x, weight)
    a, q = (lora_a * scale).to(x.dtype), lora_b.to(x.dtype).t()
    return joined_linear(x, weight, Joined(a, q, (a.shape[0],), (adapter.dropout,)), bias)


def lora_linear_reference(
    x: torch.Tensor, weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """The same, without dropout, in plain PyTorch: what peft computes."""
    return x @ weight.t() + scale * ((x @ lora_a.t()) @ lora_b.t())


def adapted_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    adapters: Sequence[Adapter],
    *,
    bias: torch.Tensor | None = None,
    chosen: torch.Tensor | None = None,
) -> torch.Tensor:
    """x · weightᵀ + bias + the sum of the adapters' parts: several active at once, or one of them for each row.

    x (…, K); weight (N, K), plain or quantised, frozen; adapters of any ranks, 512 together; chosen (…), integers as x
    has rows: which adapter, or −1 for none; without it every row goes through all. Rows need not be sorted: all A are
    one thin product, of which each row keeps its own adapter's part. Each adapter's dropout draws a mask of its own.
    Differentiable in x, bias and the adapters.
    """
    for adapter in adapters:
        check_adapter(x, weight, adapter)
    x, weight = cast_for_autocast(x, weight)
    joined = join_adapters([adapters], [weight.shape[0]], x.dtype)
    if chosen is not None:
        if chosen.shape != x.shape[:-1] or chosen.is_floating_point():
            raise ValueError(
                f"chosen is {tuple(chosen.shape)} of {chosen.dtype}; it must be {tuple(x.shape[:-1])} integers, "
                "an adapter's index or -1 for each row of x"
            )
        if joined is not None:
            owner = torch.tensor([i for i, rank in enumerate(joined.ranks) for _ in range(rank)], device=x.device)
            joined = replace(joined, chosen=(chosen.reshape(-1, 1) == owner).to(x.dtype))
    return joined_linear(x, weight, joined, bias)


def multi_lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    lora_a: torch.Tensor,
    lora_b: torch.Tensor,
    adapter: torch.Tensor,
    *,
    scales: Sequence[float],
) -> torch.Tensor:
    """Several adapters of one rank in a batch: row m of x goes through adapter `adapter[m]`, or none where that is −1.

    x (M, K); weight (N, K), plain or quantised, frozen; lora_a (E, r, K); lora_b (E, N, r); adapter (M,) integers;
    scales of the E adapters; E · r up to 512. `adapted_linear` takes adapters of different ranks.
    """
    count, rank, k = lora_a.shape
    if lora_b.shape != (count, weight.shape[0], rank) or x.dim() != 2 or x.shape[1] != k or len(scales) != count:
        raise ValueError(
            f"x {tuple(x.shape)}, lora_a {tuple(lora_a.shape)}, lora_b {tuple(lora_b.shape)} and {len(scales)} scales "
            f"must be (M, K), (E, r, K), (E, {weight.shape[0]}, r) and E"
        )
    if adapter.shape != x.shape[:1] or adapter.is_floating_point():
        raise ValueError(f"adapter is {tuple(adapter.shape)} of {adapter.dtype}; it must be ({x.shape[0]},) integers")
    if count * rank > RANK_MAX:
        raise ValueError(f"{count} adapters of rank {rank} are {count * rank} together; at most {RANK_MAX} fit a batch")
    several = [Adapter(a, b, scale) for a, b, scale in zip(lora_a, lora_b, scales, strict=True)]
    return adapted_linear(x, weight, several, chosen=adapter)


def joined_linear(
    x: torch.Tensor, weight: torch.Tensor, joined: Joined | None, bias: torch.Tensor | None
) -> torch.Tensor:
    """x (…, K) · weightᵀ + bias with what `joined` adds; x has the type in which all runs."""
    rows = x.reshape(-1, x.shape[-1])
    a, q = (None, None) if joined is None else (joined.a, joined.q)
    y: torch.Tensor = _AdaptedLinear.apply(  # type: ignore[no-untyped-call]
        rows, weight, bias, a, q, route(joined, rows, x.dtype)
    )
    return y.reshape(*x.shape[:-1], weight.shape[0])


def cast_for_autocast(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in autocast's type where it is on; a quantised weight stays."""
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
        weight = weight if isinstance(weight, QuantisedTensor) else weight.to(x.dtype)
    return x, weight


def check_adapter(x: torch.Tensor, weight: torch.Tensor, adapter: Adapter) -> None:
    """Raise ValueError unless `adapter` belongs to `weight` (N, K), and x (…, K) fits it."""
    n, k = weight.shape
    rank = adapter.a.shape[0]
    if x.shape[-1] != k:
        raise ValueError(f"x has {x.shape[-1]} features, but weight {tuple(weight.shape)} takes {k}")
    if adapter.a.shape != (rank, k) or adapter.b.shape != (n, rank):
        raise ValueError(
            f"lora_a {tuple(adapter.a.shape)} and lora_b {tuple(adapter.b.shape)} must be (r, {k}) and ({n}, r) "
            "for one r"
        )
    if not 0 <= adapter.dropout < 1:
        raise ValueError(f"dropout is {adapter.dropout}; it must be at least 0 and below 1")
    if weight.requires_grad:
        raise ValueError("weight requires a gradient; a LoRA base is frozen: call weight.requires_grad_(False)")


def base_product(
    x: torch.Tensor, weight: torch.Tensor, low_rank: LowRank | None, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """x · weightᵀ + P · Q + bias."""
    if isinstance(weight, QuantisedTensor):
        y = packed_matmul(x, weight.packed(), low_rank)
        return y if bias is None else y + bias.to(y.dtype)
    if bias is None:
        return matmul(x, weight.t(), low_rank=low_rank)
    return gemm(x, weight.t(), biased, low_rank=low_rank, bias=bias)["out"]


def base_gradient(
    dy: torch.Tensor,
    weight: torch.Tensor,
    pair: tuple[torch.Tensor, torch.Tensor] | None,
    extra: torch.Tensor | None = None,
) -> torch.Tensor:
    """dy · weight + P · Q + extra (M, K), for a pair (P, Q)."""
    if extra is not None:
        return gradient_product(dy, weight, residual, pair, residual=extra)["out"]
    low_rank = None if pair is None else LowRank(*pair)
    if isinstance(weight, QuantisedTensor):
        return packed_gradient(dy, weight.packed(), low_rank)
    return matmul(dy, weight, low_rank=low_rank)


class _AdaptedLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor | None,
        q: torch.Tensor | None,
        way: Route,
    ) -> torch.Tensor:
        p = None if a is None else way.project(x, a)
        ctx.way = way
        ctx.weight = weight
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(x, a, q, p)
        return base_product(x, weight, None if p is None or q is None else LowRank(p, q), bias)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, a, q, p = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dy = dy.contiguous()
        dx = pair = extra = da = None
        if a is not None and (needs[0] or needs[3]):
            dp = ctx.way.pulled(dy, q)
            seen = x if needs[3] else None
            if needs[0]:
                pair, extra, da = ctx.way.input_gradient(dp, a, seen)
            else:
                da = ctx.way.a_gradient(dp, a, seen)
        if needs[0]:
            dx = base_gradient(dy, ctx.weight, pair, extra)
        dbias = dy.sum(0).to(ctx.bias_dtype) if needs[2] else None
        dq = p.t() @ dy if needs[4] else None
        return dx, None, dbias, da, dq, None
