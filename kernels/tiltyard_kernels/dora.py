"""DoRA linears: y = m / ‖W + s · B · A‖ ⊙ (x · (W + s · B · A)ᵀ) over plain and quantised bases (arXiv 2402.09353).

`blocks.magnitude` has the algebra. Without dropout it is LoRA's one GEMM with one number more for each column. With
dropout peft's definition has the base see x, but its magnitude's part the dropped x:

    y = x · Wᵀ + (f − 1) ⊙ (d · Wᵀ) + f ⊙ (P · Q)    for d = dropout(x), P = s · d · Aᵀ, Q = Bᵀ

That needs the base's product twice, in each direction, however it is arranged, so that no fusion can bring it near
DoRA without dropout. Both run as u = x · Wᵀ + P · Q and y = u + (f − 1) ⊙ (d · Wᵀ + P · Q), the latter in the second
product's epilogue.
"""

from __future__ import annotations

from typing import Any

import torch

from tiltyard_kernels.blocks import magnitude as dora
from tiltyard_kernels.blocks.adapters import Adapter, Joined, Route, route
from tiltyard_kernels.gemm import LowRank, gemm
from tiltyard_kernels.lora import base_gradient, base_product, cast_for_autocast, check_adapter
from tiltyard_kernels.quantise.linear import dequantised
from tiltyard_kernels.quantise.tensor import QuantisedTensor


def dora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    lora_a: torch.Tensor,
    lora_b: torch.Tensor,
    magnitude: torch.Tensor,
    *,
    scale: float,
    bias: torch.Tensor | None = None,
    dropout: float = 0.0,
    training: bool = True,
) -> torch.Tensor:
    """magnitude / ‖weight + scale · B · A‖ ⊙ (x · (weight + scale · B · A)ᵀ) + bias, norms over the weight's rows.

    As `lora_linear`, with magnitude (N,), which is trained too. The norm is a constant for the gradients. With dropout
    as the module says, which takes the base's product twice.
    """
    adapter = Adapter(lora_a, lora_b, scale, dropout if training else 0.0)
    check_adapter(x, weight, adapter)
    if magnitude.shape != weight.shape[:1]:
        raise ValueError(f"magnitude is {tuple(magnitude.shape)}; it must be ({weight.shape[0]},), one for each row")
    x, weight = cast_for_autocast(x, weight)
    rows = x.reshape(-1, x.shape[-1])
    a, q = (lora_a * scale).to(x.dtype), lora_b.to(x.dtype).t()
    way = route(Joined(a, q, (a.shape[0],), (adapter.dropout,)), rows, x.dtype)
    fixed = (way, torch.is_grad_enabled())
    y: torch.Tensor = _DoraLinear.apply(rows, weight, bias, a, q, magnitude, fixed)  # type: ignore[no-untyped-call]
    return y.reshape(*x.shape[:-1], weight.shape[0])


def dora_linear_reference(  # noqa: PLR0917  # as dora_linear
    x: torch.Tensor,
    weight: torch.Tensor,
    lora_a: torch.Tensor,
    lora_b: torch.Tensor,
    magnitude: torch.Tensor,
    scale: float,
    dropped: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same without bias in plain PyTorch, as peft computes it; `dropped` is dropout(x)."""
    delta = scale * (lora_b @ lora_a)
    factor = magnitude / torch.linalg.vector_norm(weight + delta, dim=1).detach()
    seen = x if dropped is None else dropped
    made: torch.Tensor = x @ weight.t() + (factor - 1) * (seen @ weight.t()) + factor * (seen @ delta.t())
    return made


class _DoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        q: torch.Tensor,
        magnitude: torch.Tensor,
        fixed: tuple[Route, bool],
    ) -> torch.Tensor:
        way, is_enabled = fixed
        is_recorded = is_enabled and any(ctx.needs_input_grad)
        plain = dequantised(weight, x.dtype) if isinstance(weight, QuantisedTensor) else weight
        norm = dora.dora_norm(plain, a, q)
        operands: dict[str, Any] = {"factor": dora.dora_factor(norm, magnitude, None)}
        seen = way.dropped(x)
        low_rank = LowRank(seen @ a.t(), q)
        if way.rates:
            operands["residual"] = base_product(x, plain, low_rank, bias)
            program = dora.scaled_beside
        elif bias is not None:
            operands["bias"] = bias
            program = dora.scaled_biased
        else:
            program = dora.scaled
        made = gemm(seen, plain.t(), program[is_recorded], low_rank=low_rank, **operands)
        ctx.way = way
        ctx.weight = weight
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(x, a, q, low_rank.p, made.get("z"), magnitude, norm)
        return made["out"]

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, a, q, p, z, magnitude, norm = ctx.saved_tensors
        way, needs = ctx.way, ctx.needs_input_grad
        dy = dy.contiguous()
        factor = dora.dora_factor(norm, magnitude, None)
        dz, dfactor, _ = dora.through_factor(dy, z, factor)
        dp = dz @ q.t()
        dx = None
        if needs[0] and not way.rates:
            dx = base_gradient(dz, ctx.weight, (dp, a))
        elif needs[0]:
            # Through d: its own product, then the mask. Through the base's x: dy, and that joins in the epilogue.
            through_base = dora.through_factor(dy, z, factor - 1)[0]
            dx = base_gradient(dy, ctx.weight, None, way.dropped(base_gradient(through_base, ctx.weight, (dp, a))))
        dbias = dy.sum(0).to(ctx.bias_dtype) if needs[2] else None
        da = dp.t() @ way.dropped(x) if needs[3] else None
        dq = p.t() @ dz if needs[4] else None
        dmagnitude = dora.magnitude_gradient(dfactor, norm, magnitude, None) if needs[5] else None
        return dx, None, dbias, da, dq, dmagnitude, None
