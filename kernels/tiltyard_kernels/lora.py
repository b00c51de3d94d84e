"""LoRA linears: y = x · Wᵀ + s · (x · Aᵀ) · Bᵀ in one GEMM, and one for dx.

The adapter's second product joins the base's accumulator as a last block of the reduction, forward (P = s · x · Aᵀ,
Q = Bᵀ) and backward (P = s · dy · B, Q = A): the sum is never rounded between, and y and dx are written once. There is
no dW for the base, which may be quantised. What remains are products with a side of length r, which read x or dy once.

LoRA: Hu et al., arXiv 2106.09685; rsLoRA's scale: Kalajdzievski, arXiv 2312.03732; DoRA: Liu et al., arXiv 2402.09353.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from tiltyard_kernels.blocks.programs import biased, scaled_columns
from tiltyard_kernels.gemm import LowRank, gemm, matmul
from tiltyard_kernels.gemm.ops import RANK_MAX
from tiltyard_kernels.quantise.linear import dequantised, packed_matmul
from tiltyard_kernels.quantise.tensor import QuantisedTensor


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
    are rounded to x's, and their gradients come in their own. Under autocast everything runs in its dtype.
    """
    _check(x, weight, lora_a, lora_b, dropout)
    x, weight = _cast(x, weight)
    rows = x.reshape(-1, x.shape[-1])
    dropped = torch.nn.functional.dropout(rows, dropout) if dropout and training else None
    y: torch.Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
        rows, dropped, weight, bias, lora_a.to(x.dtype), lora_b.to(x.dtype), scale
    )
    return y.reshape(*x.shape[:-1], weight.shape[0])


def lora_linear_reference(
    x: torch.Tensor, weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """The same, without dropout, in plain PyTorch: what peft computes."""
    return x @ weight.t() + scale * ((x @ lora_a.t()) @ lora_b.t())


def multi_lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    lora_a: torch.Tensor,
    lora_b: torch.Tensor,
    adapter: torch.Tensor,
    *,
    scales: Sequence[float],
) -> torch.Tensor:
    """Several adapters in one batch: row m of x goes through adapter `adapter[m]`, or through none where that is −1.

    x (M, K); weight (N, K), plain or quantised, frozen; lora_a (E, r, K); lora_b (E, N, r); adapter (M,) integers;
    scales of the E adapters; E · r up to 512. All adapters' A are one thin product, of which each row keeps its own
    adapter's part, so rows need not be sorted. Differentiable in x and the adapters.
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
    x, weight = _cast(x, weight)
    factors = torch.tensor(scales, dtype=x.dtype, device=x.device)
    kept = (adapter[:, None] == torch.arange(count, device=x.device)) * factors  # (M, E)
    mask = kept.repeat_interleave(rank, 1)
    a = lora_a.to(x.dtype).flatten(0, 1)
    q = lora_b.to(x.dtype).transpose(1, 2).flatten(0, 1)
    p = (x @ a.t()) * mask
    y: torch.Tensor = _Joined.apply(x, weight, p, q)  # type: ignore[no-untyped-call]
    return y


def dora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    lora_a: torch.Tensor,
    lora_b: torch.Tensor,
    magnitude: torch.Tensor,
    *,
    scale: float,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """DoRA: m / ‖W + s · B · A‖ ⊙ (x · (W + s · B · A)ᵀ) + bias, norms over each row of the weight.

    As lora_linear, with magnitude (N,), which is trained too. As the paper has it (4.3), the norm is a constant for the
    gradients. Magnitudes must not be 0.
    """
    _check(x, weight, lora_a, lora_b, 0.0)
    x, weight = _cast(x, weight)
    rows = x.reshape(-1, x.shape[-1])
    factor = magnitude.float() / dora_norm(weight, lora_a, lora_b, scale)
    y: torch.Tensor = _DoraLinear.apply(  # type: ignore[no-untyped-call]
        rows, weight, factor, (lora_a * scale).to(x.dtype), lora_b.to(x.dtype)
    )
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias.to(y.dtype)


@torch.no_grad()
def dora_norm(weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, scale: float) -> torch.Tensor:
    """‖W + s · B · A‖ of each row (N,), float32, from ‖w‖² + 2 s (w · Aᵀ) · b + s² b · (A · Aᵀ) · b, without B · A."""
    dtype = torch.promote_types(torch.float32, lora_a.dtype)
    plain = dequantised(weight, weight.dtype) if isinstance(weight, QuantisedTensor) else weight
    a, b = lora_a.to(dtype), lora_b.to(dtype) * scale
    own = torch.linalg.vector_norm(plain, dim=1, dtype=dtype).square()
    crossed = ((plain @ lora_a.t().to(plain.dtype)).to(dtype) * b).sum(1)
    squares: torch.Tensor = own + 2 * crossed + ((b @ (a @ a.t())) * b).sum(1)
    return squares.clamp_min(0).sqrt()


def _cast(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
        weight = weight if isinstance(weight, QuantisedTensor) else weight.to(x.dtype)
    return x, weight


def _check(x: torch.Tensor, weight: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, dropout: float) -> None:
    n, k = weight.shape
    rank = lora_a.shape[0]
    if x.shape[-1] != k:
        raise ValueError(f"x has {x.shape[-1]} features, but weight {tuple(weight.shape)} takes {k}")
    if lora_a.shape != (rank, k) or lora_b.shape != (n, rank):
        raise ValueError(
            f"lora_a {tuple(lora_a.shape)} and lora_b {tuple(lora_b.shape)} must be (r, {k}) and ({n}, r) for one r"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")
    if weight.requires_grad:
        raise ValueError("weight requires a gradient; a LoRA base is frozen: call weight.requires_grad_(False)")


def _forward(
    x: torch.Tensor, weight: torch.Tensor, low_rank: LowRank, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """x · weightᵀ + P · Q + bias."""
    if isinstance(weight, QuantisedTensor):
        y = packed_matmul(x, weight.packed(), low_rank)
        return y if bias is None else y + bias.to(y.dtype)
    if bias is None:
        return matmul(x, weight.t(), low_rank=low_rank)
    return gemm(x, weight.t(), biased, low_rank=low_rank, bias=bias)["out"]


def _backward(dy: torch.Tensor, weight: torch.Tensor, low_rank: LowRank | None) -> torch.Tensor:
    """dy · weight + P · Q."""
    plain = dequantised(weight, dy.dtype) if isinstance(weight, QuantisedTensor) else weight
    return matmul(dy, plain, low_rank=low_rank)


def _scaled_product(x: torch.Tensor, y: torch.Tensor, scale: float) -> torch.Tensor:
    """scale · x · y. No rounding of the scale on its own: cuBLAS's alpha is in the accumulator's type."""
    return torch.addmm(x.new_empty(()), x, y, beta=0, alpha=scale)


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        ctx.is_dropped = dropped is not None
        seen = x if dropped is None else dropped
        p = _scaled_product(seen, lora_a.t(), scale)
        ctx.scale = scale
        ctx.weight = weight
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(seen, lora_a, lora_b, p)
        return _forward(x, weight, LowRank(p, lora_b.t()), bias)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, lora_a, lora_b, p = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dy = dy.contiguous()
        dp = _scaled_product(dy, lora_b, ctx.scale)  # (M, r)
        dx = ddropped = None
        if needs[0] or needs[1]:
            if ctx.is_dropped:  # the adapter's path goes through the mask, the base's does not
                dx, ddropped = _backward(dy, ctx.weight, None), dp @ lora_a
            else:
                dx = _backward(dy, ctx.weight, LowRank(dp, lora_a))
        dbias = dy.sum(0).to(ctx.bias_dtype) if needs[3] else None
        da = dp.t() @ seen if needs[4] else None
        db = dy.t() @ p if needs[5] else None
        return dx, ddropped, None, dbias, da, db, None


class _Joined(torch.autograd.Function):
    """x · weightᵀ + P · Q with P given."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        ctx.weight = weight
        ctx.save_for_backward(p, q)
        return _forward(x, weight, LowRank(p, q))

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        p, q = ctx.saved_tensors
        dy = dy.contiguous()
        dx = _backward(dy, ctx.weight, None) if ctx.needs_input_grad[0] else None
        return dx, None, dy @ q.t(), p.t() @ dy


class _DoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        factor: torch.Tensor,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
    ) -> torch.Tensor:
        p = x @ lora_a.t()
        plain = dequantised(weight, x.dtype) if isinstance(weight, QuantisedTensor) else weight
        y = gemm(x, plain.t(), scaled_columns, low_rank=LowRank(p, lora_b.t()), factor=factor)["out"]
        ctx.weight = weight
        ctx.save_for_backward(x, factor, lora_a, lora_b, p, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, factor, lora_a, lora_b, p, y = ctx.saved_tensors
        wide = dy.to(factor.dtype)
        dfactor = (wide * y).sum(0) / factor if ctx.needs_input_grad[2] else None
        scaled = (wide * factor).to(x.dtype)
        dp = scaled @ lora_b
        dx = _backward(scaled, ctx.weight, LowRank(dp, lora_a)) if ctx.needs_input_grad[0] else None
        return dx, None, dfactor, dp.t() @ x, scaled.t() @ p
