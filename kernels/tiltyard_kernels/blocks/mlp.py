"""norm → gate/up → SwiGLU or GeGLU → down → residual, as two GEMMs forward and four backward, with nothing between.

Saved for the backward: h, z (gate and up before the activation) and the statistic. The activated product is recomputed
by the epilogue that makes dz.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from tiltyard_kernels.blocks import programs
from tiltyard_kernels.gemm import gemm, matmul

Activation = Literal["silu", "gelu_tanh"]
# Forward, backward, and forward where no backward follows.
_PROGRAMS = {
    "silu": (programs.swiglu, programs.swiglu_backward, programs.swiglu_alone),
    "gelu_tanh": (programs.geglu, programs.geglu_backward, programs.geglu_alone),
}
# By whether there is a residual beside the norm, and whether the linear after it is trained.
_THROUGH_NORM = {
    (True, True): programs.norm_backward_trained,
    (True, False): programs.norm_backward,
    (False, True): programs.norm_backward_alone_trained,
    (False, False): programs.norm_backward_alone,
}


def rstd_of(h: torch.Tensor, eps: float) -> torch.Tensor:
    """1 / sqrt(mean h² + eps) of each row, float32 (float64 for float64): a stream's first statistic."""
    wide = h.to(torch.promote_types(h.dtype, torch.float32))
    return torch.rsqrt(wide.square().mean(-1) + eps)


def mlp(
    h: torch.Tensor,
    rstd: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    *,
    eps: float,
    activation: Activation = "silu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """h + down(act(gate) · up), and the result's rstd for the next norm.

    h (M, D); rstd (M,), the statistic of h (`rstd_of`, or what the block before returned); gate_up (2F, D), interleaved
    and with the norm's weight folded in (`layouts`); down (D, F). Differentiable in h, gate_up and down; h's gradient
    includes that through its statistic. The returned rstd carries no gradient: hand it to the next block only.
    """
    if activation not in _PROGRAMS:
        raise ValueError(f"activation is {activation!r}; it must be one of {', '.join(_PROGRAMS)}")
    if torch.is_grad_enabled() and (h.requires_grad or gate_up.requires_grad or down.requires_grad):
        y, next_rstd = _Mlp.apply(h, rstd, gate_up, down, activation, eps)  # type: ignore[no-untyped-call]
    else:
        activated = gemm(h, gate_up.t(), _PROGRAMS[activation][2], rstd=rstd)["activated"]
        y, next_rstd = gemm(activated, down.t(), programs.residual_norm, residual=h, eps=eps).values()
    return y, next_rstd


def mlp_reference(
    h: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    *,
    eps: float,
    activation: Activation = "silu",
) -> torch.Tensor:
    """The same in plain PyTorch, differentiable: float64 inputs give the truth."""
    z = (h * rstd_of(h, eps)[:, None].to(h.dtype)) @ gate_up.t()
    gate, up = z[:, 0::2], z[:, 1::2]
    act = torch.nn.functional.silu(gate) if activation == "silu" else torch.nn.functional.gelu(gate, approximate="tanh")
    return h + (act * up) @ down.t()


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        h: torch.Tensor,
        rstd: torch.Tensor,
        gate_up: torch.Tensor,
        down: torch.Tensor,
        activation: str,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        first = gemm(h, gate_up.t(), _PROGRAMS[activation][0], rstd=rstd)
        second = gemm(first["activated"], down.t(), programs.residual_norm, residual=h, eps=eps)
        ctx.activation = activation
        ctx.save_for_backward(h, rstd, gate_up, down, first["z"])
        ctx.mark_non_differentiable(second["rstd"])
        return second["out"], second["rstd"]

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor, _drstd: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h, rstd, gate_up, down, z = ctx.saved_tensors
        dy = dy.contiguous()
        inner = gemm(dy, down, _PROGRAMS[ctx.activation][1], z=z)
        ddown = matmul(dy.t(), inner["activated"]) if ctx.needs_input_grad[3] else None
        dh, dgate_up = norm_linear_backward(
            inner["dz"], gate_up, h=h, dy=dy, rstd=rstd, dot=inner["dot"], needs_weight=ctx.needs_input_grad[2]
        )
        return dh, None, dgate_up, ddown, None, None


def norm_linear_backward(
    dz: torch.Tensor,
    weight: torch.Tensor,
    *,
    h: torch.Tensor,
    dy: torch.Tensor | None,
    rstd: torch.Tensor,
    dot: torch.Tensor,
    needs_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Through z = rstd ⊙ (h · weightᵀ), and the residual beside it unless dy is None: (dh, dweight). `dot` (M,) is
    Σ z·dz of each row."""
    operands: dict[str, torch.Tensor | float] = {"h": h, "rstd": rstd, "dot": dot, "size": float(h.shape[1])}
    if dy is not None:
        operands["dy"] = dy
    results = gemm(dz, weight, _THROUGH_NORM[dy is not None, needs_weight], **operands)  # type: ignore[arg-type]  # by name
    return results["dh"], matmul(dz.t(), results["normed"]) if needs_weight else None
