"""A decoder layer's three fused parts over any base, with adapters: norm and QKV, output and residual, norm and MLP.

Each takes the residual stream h and gives its next value (or queries, keys and values). The norm runs as one pass
before the product; its backward, the residual's gradient and the adapters' part are in the epilogue of the product
that makes dh. For a row with x = rstd · γ ⊙ h and dx = dz · W, what the norm's backward needs, Σ x · dx, is Σ z · dz
over the product's columns, adapters included and the bias left out.

Dimension letters: M rows (tokens), D width of the stream, N columns of a product, F of the MLP, R rank of all adapters.
"""

from __future__ import annotations

from typing import Any

import torch

from tiltyard_kernels.blocks import programs
from tiltyard_kernels.blocks.bases import Base, dense, product
from tiltyard_kernels.blocks.rows import rms_norm, rotate_back, rotate_half
from tiltyard_kernels.gemm import matmul
from tiltyard_kernels.gemm.ops import _store

Pair = tuple[torch.Tensor, torch.Tensor]
# Forward, backward, and forward where no backward follows.
_GATED = {
    "silu": (programs.gated, programs.swiglu_backward, programs.gated_alone),
    "gelu_tanh": (programs.gated_gelu, programs.geglu_backward, programs.gated_gelu_alone),
}

# By whether there is a residual beside it, and whether the norm's weight is trained.
_THROUGH_NORM = {
    (True, True): programs.gained_norm_backward_trained,
    (True, False): programs.gained_norm_backward,
    (False, True): programs.gained_norm_backward_alone_trained,
    (False, False): programs.gained_norm_backward_alone,
}


def _split(pair: Pair | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    return (None, None) if pair is None else pair


def _compute_dtype(h: torch.Tensor) -> torch.dtype:
    if torch.is_autocast_enabled(h.device.type):
        return torch.get_autocast_dtype(h.device.type)
    return h.dtype


def _adapter_part(x: torch.Tensor, a: torch.Tensor | None, q: torch.Tensor | None) -> Pair | None:
    return None if a is None or q is None else (x @ a.t(), q)


def norm_qkv(  # noqa: PLR0917  # what the part takes
    h: torch.Tensor,
    gain: torch.Tensor,
    base: Base,
    bias: torch.Tensor | None,
    adapters: Pair | None,
    rotary: tuple[torch.Tensor, torch.Tensor, int] | None,
    *,
    eps: float,
) -> torch.Tensor:
    """norm(h) · baseᵀ + bias, with RoPE: (M, N), queries, keys and values side by side.

    h (M, D); gain (D,); base (N, D); `rotary` is (cos, sin, heads): cos and sin (M, head_dim / 2), and how many heads
    from the left they turn. Differentiable in h, gain, bias, the adapters, and a plain base.
    """
    cos, sin, heads = rotary if rotary is not None else (None, None, 0)
    a, q = _split(adapters)
    y: torch.Tensor = _NormQkv.apply(  # type: ignore[no-untyped-call]
        h, gain, _trained(base), bias, a, q, (base, cos, sin, heads, eps, _compute_dtype(h))
    )
    return y


def _trained(base: Base) -> torch.Tensor | None:
    """The base as autograd sees it: only where it is trained."""
    return base if isinstance(base, torch.Tensor) and base.requires_grad else None


class _NormQkv(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        h: torch.Tensor,
        gain: torch.Tensor,
        _trained: torch.Tensor | None,
        bias: torch.Tensor | None,
        a: torch.Tensor | None,
        q: torch.Tensor | None,
        fixed: Any,
    ) -> torch.Tensor:
        base, cos, sin, heads, eps, dtype = fixed
        x, rstd = rms_norm(h, gain, eps, dtype=dtype)
        pair = _adapter_part(x, a, q)
        weight = dense(base, dtype)
        if bias is None:
            y = product(x, weight.t(), _store, pair)["out"]
        else:
            y = product(x, weight.t(), programs.biased, pair, bias=bias)["out"]
        if heads:
            y = rotate_half(y, cos, sin, heads)
        ctx.fixed = fixed
        ctx.save_for_backward(h, gain, rstd, bias, a, q, None if pair is None else pair[0], y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h, gain, rstd, bias, a, q, p, y = ctx.saved_tensors
        base, cos, sin, heads, eps, dtype = ctx.fixed
        needs = ctx.needs_input_grad
        dy = dy.to(dtype).contiguous()
        if heads:
            dz, dot = rotate_back(dy, y, cos, sin, heads)
        else:
            dz, dot = dy, (dy.to(rstd.dtype) * y).sum(1)
        dbias = None
        if bias is not None:
            dot = dot - dz.to(rstd.dtype) @ bias.to(rstd.dtype)
            dbias = dz.sum(0).to(bias.dtype) if needs[3] else None
        x = rms_norm(h, gain, eps, dtype=dtype, rstd=rstd)[0] if needs[2] or needs[4] else None
        pair, da, dq = _adapter_gradients(dz, x, a, q, p)
        dh, dgain = _through_norm(dz, dense(base, dtype), pair, (h, None, gain, rstd, dot), needs_gain=needs[1])
        dweight = matmul(dz.t(), x) if needs[2] and x is not None else None
        return dh, dgain, dweight, dbias, da, dq, None


def _adapter_gradients(
    dz: torch.Tensor,
    x: torch.Tensor | None,
    a: torch.Tensor | None,
    q: torch.Tensor | None,
    p: torch.Tensor | None,
) -> tuple[Pair | None, torch.Tensor | None, torch.Tensor | None]:
    """What joins dz · W, (dz · Qᵀ, A), and the gradients of A and Q."""
    if a is None or q is None or p is None:
        return None, None, None
    dp = dz @ q.t()
    return (dp, a), None if x is None else dp.t() @ x, p.t() @ dz


def _through_norm(
    dz: torch.Tensor,
    weight: torch.Tensor,
    pair: Pair | None,
    norm: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor],
    *,
    needs_gain: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(dh, dγ) through z = (rstd · γ ⊙ h) · weightᵀ and, if dy is given, the residual beside it; `norm` is h, dy, γ,
    rstd, Σ z · dz."""
    h, dy, gain, rstd, dot = norm
    operands = {"h": h, "rstd": rstd, "pull": rstd.square() * dot / h.shape[1], "gain": gain}
    if dy is not None:
        operands["dy"] = dy
    program = _THROUGH_NORM[dy is not None, needs_gain]
    made = product(dz, weight, program, pair, out_dtype=h.dtype, **operands)
    return made["dh"], made["dgain"].to(gain.dtype) if needs_gain else None


def residual_linear(
    o: torch.Tensor, base: Base, bias: torch.Tensor | None, adapters: Pair | None, h: torch.Tensor
) -> torch.Tensor:
    """h + o · baseᵀ + bias: (M, D), in h's type. Differentiable in o, bias, the adapters, h, and a plain base."""
    a, q = _split(adapters)
    stream = h if bias is None else h + bias.to(h.dtype)
    y: torch.Tensor = _ResidualLinear.apply(  # type: ignore[no-untyped-call]
        o, _trained(base), a, q, stream, (base, _compute_dtype(o))
    )
    return y


class _ResidualLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        o: torch.Tensor,
        _trained: torch.Tensor | None,
        a: torch.Tensor | None,
        q: torch.Tensor | None,
        h: torch.Tensor,
        fixed: Any,
    ) -> torch.Tensor:
        base, dtype = fixed
        o = o.to(dtype)
        pair = _adapter_part(o, a, q)
        ctx.fixed = fixed
        ctx.save_for_backward(o, a, q, None if pair is None else pair[0])
        weight = dense(base, dtype)
        return product(o, weight.t(), programs.residual, pair, out_dtype=h.dtype, residual=h)["out"]

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        o, a, q, p = ctx.saved_tensors
        base, dtype = ctx.fixed
        narrow = dy.to(dtype).contiguous()
        pair, da, dq = _adapter_gradients(narrow, o, a, q, p)
        do = product(narrow, dense(base, dtype), _store, pair)["out"] if ctx.needs_input_grad[0] else None
        dweight = matmul(narrow.t(), o) if ctx.needs_input_grad[1] else None
        return do, dweight, da, dq, dy, None


def norm_mlp(
    h: torch.Tensor,
    gain: torch.Tensor,
    gate_up: Base,
    down: Base,
    adapters: tuple[Pair | None, Pair | None],
    *,
    eps: float,
    activation: str = "silu",
) -> torch.Tensor:
    """h + down(act(gate) · up) of norm(h): (M, D), in h's type.

    gate_up (2F, D) interleaved, or a pair (gate, up); down (D, F); `adapters` of gate_up and of down. Differentiable in
    h, gain, the adapters, and plain bases.
    """
    a1, q1 = _split(adapters[0])
    a2, q2 = _split(adapters[1])
    fixed = (gate_up, down, eps, activation, _compute_dtype(h), torch.is_grad_enabled())
    y: torch.Tensor = _NormMlp.apply(  # type: ignore[no-untyped-call]
        h, gain, _trained(gate_up), _trained(down), a1, q1, a2, q2, fixed
    )
    return y


class _NormMlp(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        h: torch.Tensor,
        gain: torch.Tensor,
        _trained_gate_up: torch.Tensor | None,
        _trained_down: torch.Tensor | None,
        a1: torch.Tensor | None,
        q1: torch.Tensor | None,
        a2: torch.Tensor | None,
        q2: torch.Tensor | None,
        fixed: Any,
    ) -> torch.Tensor:
        gate_up, down, eps, activation, dtype, is_recorded = fixed
        x, rstd = rms_norm(h, gain, eps, dtype=dtype)
        pair1 = _adapter_part(x, a1, q1)
        program = _GATED[activation][0 if is_recorded and any(ctx.needs_input_grad) else 2]
        first = product(x, dense(gate_up, dtype, is_interleaved=True).t(), program, pair1)
        pair2 = _adapter_part(first["activated"], a2, q2)
        y = product(
            first["activated"], dense(down, dtype).t(), programs.residual, pair2, out_dtype=h.dtype, residual=h
        )["out"]
        ctx.fixed = fixed
        p1, p2 = (None if pair is None else pair[0] for pair in (pair1, pair2))
        ctx.save_for_backward(h, gain, rstd, first.get("z"), a1, q1, a2, q2, p1, p2)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h, gain, rstd, z, a1, q1, a2, q2, p1, p2 = ctx.saved_tensors
        gate_up, down, eps, activation, dtype, _ = ctx.fixed
        needs = ctx.needs_input_grad
        dy = dy.contiguous()
        narrow = dy.to(dtype)
        pair2 = None if q2 is None else (narrow @ q2.t(), a2)
        inner = product(narrow, dense(down, dtype), _GATED[activation][1], pair2, z=z)
        dz, activated = inner["dz"], inner["activated"]
        da2 = dq2 = None
        if pair2 is not None:
            da2, dq2 = pair2[0].t() @ activated, p2.t() @ narrow
        x = rms_norm(h, gain, eps, dtype=dtype, rstd=rstd)[0] if needs[2] or needs[4] else None
        pair1, da1, dq1 = _adapter_gradients(dz, x, a1, q1, p1)
        weight = dense(gate_up, dtype, is_interleaved=True)
        dh, dgain = _through_norm(dz, weight, pair1, (h, dy, gain, rstd, inner["dot"]), needs_gain=needs[1])
        dgate_up = matmul(dz.t(), x) if needs[2] and x is not None else None
        ddown = matmul(narrow.t(), activated) if needs[3] else None
        return dh, dgain, dgate_up, ddown, da1, dq1, da2, dq2, None
