"""A decoder layer's three fused parts over any base, with adapters: norm and QKV, output and residual, norm and MLP.

Each takes the residual stream h and gives its next value (or queries, keys and values). The norm runs as one pass
before the product; its backward, the residual's gradient and the adapters' part are in the epilogue of the product
that makes dh. For a row with x = rstd · γ ⊙ h and dx = dz · W, what the norm's backward needs, Σ x · dx, is Σ z · dz
over the product's columns, adapters included and the bias left out: z is linear in x, whichever of its numbers the
adapters do not see, and whatever factor DoRA gives a column.

Dimension letters: M rows (tokens), D width of the stream, N columns of a product, F of the MLP, R rank of all adapters.
"""

from __future__ import annotations

from typing import Any

import torch

from tiltyard_kernels.blocks import magnitude as dora
from tiltyard_kernels.blocks import programs
from tiltyard_kernels.blocks.adapters import Joined, Pair, route
from tiltyard_kernels.blocks.bases import Base, dense, forward_product, gradient_product, product
from tiltyard_kernels.blocks.heads import HeadNorm, norm_heads, norm_heads_backward
from tiltyard_kernels.blocks.rows import rms_norm, rotate_back, rotate_half
from tiltyard_kernels.epilogue import Epilogue, Value, epilogue, store, tile
from tiltyard_kernels.gemm import matmul
from tiltyard_kernels.gemm.ops import _store

_NOTHING = torch.empty(0)  # in a HeadNorm's place of a gain that autograd carries

# Forward, backward, and forward where no backward follows.
_GATED = {
    "silu": (programs.gated, programs.swiglu_backward, programs.gated_alone),
    "gelu_tanh": (programs.gated_gelu, programs.geglu_backward, programs.gated_gelu_alone),
}


@epilogue(loads={"extra": tile()}, stores={"joined": store()})
def _beside(acc: Value, extra: Value) -> dict[str, Value]:
    """What adapters add to an input's gradient where it comes of a pass of its own."""
    return {"joined": acc + extra}


def _also_beside(program: Epilogue) -> dict[bool, Epilogue]:
    """`program`, and under True the same with `extra` added to the accumulator first."""
    return {False: program, True: _beside.then(program, through="joined")}


# By whether there is a residual beside it, and whether the norm's weight is trained.
_THROUGH_NORM = {
    (True, True): _also_beside(programs.gained_norm_backward_trained),
    (True, False): _also_beside(programs.gained_norm_backward),
    (False, True): _also_beside(programs.gained_norm_backward_alone_trained),
    (False, False): _also_beside(programs.gained_norm_backward_alone),
}
_THROUGH_GATE = {name: _also_beside(several[1]) for name, several in _GATED.items()}
_THROUGH_DORA_GATE = {name: _also_beside(program) for name, program in dora.gated_backward.items()}


def _tensors(
    adapters: Joined | None,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """(A, Q, magnitude), for autograd to see."""
    if adapters is None:
        return None, None, None
    if adapters.magnitude is not None and (any(adapters.rates) or adapters.chosen is not None):
        raise ValueError(
            "DoRA in a fused part goes without dropout and with the same adapters for all rows: "
            "use tiltyard_kernels.dora.dora_linear for dropout"
        )
    return adapters.a, adapters.q, adapters.magnitude


def _compute_dtype(h: torch.Tensor) -> torch.dtype:
    if torch.is_autocast_enabled(h.device.type):
        return torch.get_autocast_dtype(h.device.type)
    return h.dtype


def norm_qkv(  # noqa: PLR0917  # what the part takes
    h: torch.Tensor,
    gain: torch.Tensor,
    base: Base,
    bias: torch.Tensor | None,
    adapters: Joined | None,
    rotary: tuple[torch.Tensor, torch.Tensor, int] | None,
    *,
    eps: float,
    head_norm: HeadNorm | None = None,
) -> torch.Tensor:
    """norm(h) · baseᵀ + bias, with RoPE: (M, N), queries, keys and values side by side.

    h (M, D); gain (D,); base (N, D); `rotary` is (cos, sin, heads): cos and sin (M, head_dim / 2), and how many heads
    from the left they turn. With `head_norm` each of these is normed before. Differentiable in h, gain, bias, the
    adapters, the heads' gain, and a plain base. Raises ValueError for a head norm without RoPE, or with DoRA.
    """
    cos, sin, heads = rotary if rotary is not None else (None, None, 0)
    a, q, magnitude = _tensors(adapters)
    if head_norm is not None and (rotary is None or magnitude is not None):
        raise ValueError("Heads are normed together with RoPE, and not under DoRA: give rotary, and no magnitude.")
    dtype = _compute_dtype(h)
    has_magnitude = None if adapters is None else adapters.has_magnitude
    fixed = (base, cos, sin, heads, eps, dtype, route(adapters, h, dtype), has_magnitude, torch.is_grad_enabled())
    head_gain, of_heads = (None, None) if head_norm is None else (head_norm.gain, head_norm._replace(gain=_NOTHING))
    y: torch.Tensor = _NormQkv.apply(  # type: ignore[no-untyped-call]
        h, gain, _trained(base), bias, a, q, magnitude, head_gain, (*fixed, of_heads)
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
        magnitude: torch.Tensor | None,
        head_gain: torch.Tensor | None,
        fixed: Any,
    ) -> torch.Tensor:
        base, cos, sin, heads, eps, dtype, way, has_magnitude, is_recorded, of_heads = fixed
        x, rstd = rms_norm(h, gain, eps, dtype=dtype)
        pair = None if a is None or q is None else (way.project(x, a), q)
        operands: dict[str, Any] = {} if bias is None else {"bias": bias}
        norm = z = None
        if magnitude is None:
            y = forward_product(x, base, _store if bias is None else programs.biased, pair, **operands)["out"]
        else:
            weight = dense(base, dtype)
            norm = dora.dora_norm(weight, a, q)  # type: ignore[arg-type]  # a magnitude comes with an adapter
            operands["factor"] = dora.dora_factor(norm, magnitude, has_magnitude)
            program = (dora.scaled if bias is None else dora.scaled_biased)[is_recorded]
            made = product(x, weight.t(), program, pair, **operands)
            y, z = made["out"], made.get("z")
        if head_gain is not None:
            z = y
            y = norm_heads(y, of_heads._replace(gain=head_gain), cos, sin, heads)
        elif heads:
            y = rotate_half(y, cos, sin, heads)
        ctx.fixed = fixed
        p = None if pair is None else pair[0]
        ctx.save_for_backward(h, gain, rstd, bias, a, q, p, y if z is None else z, magnitude, norm, head_gain)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h, gain, rstd, bias, a, q, p, y, magnitude, norm, head_gain = ctx.saved_tensors
        base, cos, sin, heads, eps, dtype, way, has_magnitude, _, of_heads = ctx.fixed
        needs = ctx.needs_input_grad
        dy = dy.to(dtype).contiguous()
        dbias = dmagnitude = dhead = None
        if magnitude is not None:  # y is from before the factor, the bias and RoPE
            dy = rotate_half(dy, cos, sin, heads, sign=-1.0) if heads else dy
            dbias = dy.sum(0).to(bias.dtype) if needs[3] else None
            dz, dfactor, dot = dora.through_factor(dy, y, dora.dora_factor(norm, magnitude, has_magnitude))
            dmagnitude = dora.magnitude_gradient(dfactor, norm, magnitude, has_magnitude)
        else:
            if head_gain is not None:  # y is from before the norm
                of_heads = of_heads._replace(gain=head_gain)
                dz, dot, dhead = norm_heads_backward(dy, y, of_heads, cos, sin, heads, needs_gain=needs[7])
                dhead = None if dhead is None else dhead.to(head_gain.dtype)
            elif heads:
                dz, dot = rotate_back(dy, y, cos, sin, heads)
            else:
                dz, dot = dy, (dy.to(rstd.dtype) * y).sum(1)
            if bias is not None:
                dot = dot - dz.to(rstd.dtype) @ bias.to(rstd.dtype)
                dbias = dz.sum(0).to(bias.dtype) if needs[3] else None
        x = rms_norm(h, gain, eps, dtype=dtype, rstd=rstd)[0] if needs[2] or needs[4] else None
        pair, extra, da, dq = _adapter_gradients(dz, x if needs[4] else None, (a, q, p), way)
        dh, dgain = _through_norm(dz, base, pair, extra, (h, None, gain, rstd, dot), needs_gain=needs[1])
        dweight = matmul(dz.t(), x) if needs[2] and x is not None else None
        return dh, dgain, dweight, dbias, da, dq, dmagnitude, dhead, None


def _adapter_gradients(
    dz: torch.Tensor,
    x: torch.Tensor | None,
    joined: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
    way: Any,
) -> tuple[Pair | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """What joins dz · W, or is added to it, and the gradients of A, if x is given, and Q; `joined` is A, Q and P."""
    a, q, p = joined
    if a is None or q is None or p is None:
        return None, None, None, None
    pair, extra, da = way.input_gradient(way.pulled(dz, q), a, x)
    return pair, extra, da, p.t() @ dz


def _through_norm(
    dz: torch.Tensor,
    base: Base,
    pair: Pair | None,
    extra: torch.Tensor | None,
    norm: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor],
    *,
    needs_gain: bool,
    is_interleaved: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(dh, dγ) through z = (rstd · γ ⊙ h) · baseᵀ and, if dy is given, the residual beside it; `norm` is h, dy, γ,
    rstd, Σ z · dz."""
    h, dy, gain, rstd, dot = norm
    operands: dict[str, Any] = {"h": h, "rstd": rstd, "dot": dot, "size": float(h.shape[1]), "gain": gain}
    if dy is not None:
        operands["dy"] = dy
    if extra is not None:
        operands["extra"] = extra
    program = _THROUGH_NORM[dy is not None, needs_gain][extra is not None]
    made = gradient_product(dz, base, program, pair, is_interleaved=is_interleaved, out_dtype=h.dtype, **operands)
    return made["dh"], made["dgain"].to(gain.dtype) if needs_gain else None


def residual_linear(
    o: torch.Tensor, base: Base, bias: torch.Tensor | None, adapters: Joined | None, h: torch.Tensor
) -> torch.Tensor:
    """h + o · baseᵀ + bias: (M, D), in h's type. Differentiable in o, bias, the adapters, h, and a plain base."""
    a, q, magnitude = _tensors(adapters)
    stream = h if bias is None else h + bias.to(h.dtype)
    dtype = _compute_dtype(o)
    fixed = (base, dtype, route(adapters, o, dtype), torch.is_grad_enabled())
    y: torch.Tensor = _ResidualLinear.apply(  # type: ignore[no-untyped-call]
        o, _trained(base), a, q, magnitude, stream, fixed
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
        magnitude: torch.Tensor | None,
        h: torch.Tensor,
        fixed: Any,
    ) -> torch.Tensor:
        base, dtype, way, is_recorded = fixed
        o = o.to(dtype)
        pair = None if a is None or q is None else (way.project(o, a), q)
        norm = None
        if magnitude is None:
            made = forward_product(o, base, programs.residual, pair, out_dtype=h.dtype, residual=h)
        else:
            weight = dense(base, dtype)
            norm = dora.dora_norm(weight, a, q)  # type: ignore[arg-type]  # a magnitude comes with an adapter
            factor = dora.dora_factor(norm, magnitude, None)
            program = dora.scaled_residual[is_recorded]
            made = product(o, weight.t(), program, pair, out_dtype=h.dtype, factor=factor, residual=h)
        ctx.fixed = fixed
        p = None if pair is None else pair[0]
        ctx.save_for_backward(o, a, q, p, magnitude, norm, made.get("z"))
        return made["out"]

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        o, a, q, p, magnitude, norm, z = ctx.saved_tensors
        base, dtype, way, _ = ctx.fixed
        needs = ctx.needs_input_grad
        dz = dy.to(dtype).contiguous()
        dmagnitude = None
        if magnitude is not None:
            dz, dfactor, _ = dora.through_factor(dz, z, dora.dora_factor(norm, magnitude, None))
            dmagnitude = dora.magnitude_gradient(dfactor, norm, magnitude, None)
        pair, extra, da, dq = _adapter_gradients(dz, o, (a, q, p), way)
        do = None
        if needs[0]:
            operands: dict[str, Any] = {} if extra is None else {"residual": extra}
            do = gradient_product(dz, base, programs.residual if operands else _store, pair, **operands)["out"]
        dweight = matmul(dz.t(), o) if needs[1] else None
        return do, dweight, da, dq, dmagnitude, dy, None


def norm_mlp(
    h: torch.Tensor,
    gain: torch.Tensor,
    gate_up: Base,
    down: Base,
    adapters: tuple[Joined | None, Joined | None],
    *,
    eps: float,
    activation: str = "silu",
) -> torch.Tensor:
    """h + down(act(gate) · up) of norm(h): (M, D), in h's type.

    gate_up (2F, D) interleaved, or a pair (gate, up); down (D, F); `adapters` of gate_up and of down. Differentiable in
    h, gain, the adapters, and plain bases.
    """
    first, second = adapters
    dtype = _compute_dtype(h)
    fixed = (
        *(gate_up, down, eps, activation, dtype),
        *(route(first, h, dtype), route(second, h, dtype)),
        *(None if first is None else first.has_magnitude, torch.is_grad_enabled()),
    )
    y: torch.Tensor = _NormMlp.apply(  # type: ignore[no-untyped-call]
        h, gain, _trained(gate_up), _trained(down), *_tensors(first), *_tensors(second), fixed
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
        magnitude1: torch.Tensor | None,
        a2: torch.Tensor | None,
        q2: torch.Tensor | None,
        magnitude2: torch.Tensor | None,
        fixed: Any,
    ) -> torch.Tensor:
        gate_up, down, eps, activation, dtype, way1, way2, has_magnitude, is_enabled = fixed
        is_recorded = is_enabled and any(ctx.needs_input_grad)
        x, rstd = rms_norm(h, gain, eps, dtype=dtype)
        pair1 = None if a1 is None or q1 is None else (way1.project(x, a1), q1)
        norm1 = norm2 = None
        if magnitude1 is None:
            program = _GATED[activation][0 if is_recorded else 2]
            first = forward_product(x, gate_up, program, pair1, is_interleaved=True)
        else:
            weight = dense(gate_up, dtype, is_interleaved=True)
            norm1 = dora.dora_norm(weight, a1, q1)  # type: ignore[arg-type]  # a magnitude comes with an adapter
            factor = dora.dora_factor(norm1, magnitude1, has_magnitude)
            first = product(x, weight.t(), dora.gated[activation][is_recorded], pair1, factor=factor)
        activated = first["activated"]
        pair2 = None if a2 is None or q2 is None else (way2.project(activated, a2), q2)
        if magnitude2 is None:
            second = forward_product(activated, down, programs.residual, pair2, out_dtype=h.dtype, residual=h)
        else:
            weight = dense(down, dtype)
            norm2 = dora.dora_norm(weight, a2, q2)  # type: ignore[arg-type]  # as above
            factor = dora.dora_factor(norm2, magnitude2, None)
            program = dora.scaled_residual[is_recorded]
            second = product(activated, weight.t(), program, pair2, out_dtype=h.dtype, factor=factor, residual=h)
        ctx.fixed = fixed
        p1, p2 = (None if pair is None else pair[0] for pair in (pair1, pair2))
        ctx.save_for_backward(
            *(h, gain, rstd, first.get("z"), second.get("z")),
            *(a1, q1, p1, magnitude1, norm1),
            *(a2, q2, p2, magnitude2, norm2),
        )
        return second["out"]

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h, gain, rstd, z, z2, *saved = ctx.saved_tensors
        a1, q1, p1, magnitude1, norm1, a2, q2, p2, magnitude2, norm2 = saved
        gate_up, down, eps, activation, dtype, way1, way2, has_magnitude, _ = ctx.fixed
        needs = ctx.needs_input_grad
        dy = dy.contiguous()
        narrow = dy.to(dtype)
        dmagnitude1 = dmagnitude2 = None
        if magnitude2 is not None:
            narrow, dfactor, _ = dora.through_factor(narrow, z2, dora.dora_factor(norm2, magnitude2, None))
            dmagnitude2 = dora.magnitude_gradient(dfactor, norm2, magnitude2, None)
        dp2 = pair2 = extra2 = da2 = dq2 = None
        if a2 is not None:
            dp2 = way2.pulled(narrow, q2)
            pair2, extra2, _ = way2.input_gradient(dp2, a2, None)
            dq2 = p2.t() @ narrow
        operands = {"z": z} if extra2 is None else {"z": z, "extra": extra2}
        through = _THROUGH_GATE
        if magnitude1 is not None:
            operands["factor"] = dora.dora_factor(norm1, magnitude1, has_magnitude)
            through = _THROUGH_DORA_GATE
        inner = gradient_product(narrow, down, through[activation][extra2 is not None], pair2, **operands)
        dz, activated = inner["dz"], inner["activated"]
        if dp2 is not None and needs[7]:
            da2 = way2.a_gradient(dp2, a2, activated)
        if magnitude1 is not None:
            dmagnitude1 = dora.magnitude_gradient(inner["dfactor"], norm1, magnitude1, has_magnitude)
        x = rms_norm(h, gain, eps, dtype=dtype, rstd=rstd)[0] if needs[2] or needs[4] else None
        pair1, extra1, da1, dq1 = _adapter_gradients(dz, x if needs[4] else None, (a1, q1, p1), way1)
        norm = (h, dy, gain, rstd, inner["dot"])
        dh, dgain = _through_norm(dz, gate_up, pair1, extra1, norm, needs_gain=needs[1], is_interleaved=True)
        dgate_up = matmul(dz.t(), x) if needs[2] and x is not None else None
        ddown = matmul(narrow.t(), activated) if needs[3] else None
        return dh, dgain, dgate_up, ddown, da1, dq1, dmagnitude1, da2, dq2, dmagnitude2, None
