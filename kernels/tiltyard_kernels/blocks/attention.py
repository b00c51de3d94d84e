"""The two projections around attention: norm → QKV → RoPE before it, output → residual → statistic after.

The attention between them is the caller's. Backward of RoPE: a rotation keeps lengths, so Σ z·dz = Σ y·dy over what was
saved, and dz is dy rotated back.
"""

from __future__ import annotations

from typing import Any

import torch

from tiltyard_kernels.blocks import programs
from tiltyard_kernels.blocks.heads import HeadNorm, norm_heads_backward
from tiltyard_kernels.blocks.mlp import norm_linear_backward
from tiltyard_kernels.blocks.rows import rotate_back
from tiltyard_kernels.epilogue import Epilogue
from tiltyard_kernels.gemm import gemm, matmul


def qkv_projection(
    h: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    rotated: int,
    head_norm: HeadNorm | None = None,
) -> torch.Tensor:
    """norm(h) · weightᵀ with RoPE on its first `rotated` columns (queries, then keys): (M, N).

    h (M, D) and its rstd (M,); weight (N, D), with the norm's weight folded in and the rows of each query and key head
    paired (`layouts.pair_rotary`); cos and sin (M, head_dim / 2), of each token's position. With `head_norm` each of
    the heads that turn is normed before (Qwen 3), by a gain whose numbers are paired like a head's rows. Differentiable
    in h (the statistic included), weight and the heads' gain.
    """
    _check_rotary(weight, cos, sin, rotated)
    if head_norm is None:
        y: torch.Tensor = _QkvProjection.apply(h, rstd, weight, cos, sin, rotated)  # type: ignore[no-untyped-call]
    else:
        _check_head_norm(head_norm, 2 * cos.shape[1], rotated)
        y = _NormedQkvProjection.apply(  # type: ignore[no-untyped-call]
            h, rstd, weight, head_norm.gain, cos, sin, (rotated, head_norm.queries, head_norm.eps)
        )
    return y


def qkv_projection_reference(
    h: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    rotated: int,
) -> torch.Tensor:
    """The same in plain PyTorch, differentiable through rstd as well if it is."""
    return rotate((h * rstd[:, None].to(h.dtype)) @ weight.t(), cos, sin, rotated)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, rotated: int) -> torch.Tensor:
    """RoPE over neighbouring pairs of the first `rotated` columns of x (M, N)."""
    half = cos.shape[1]
    paired = x[:, :rotated].reshape(x.shape[0], -1, half, 2)
    c, s = cos[:, None, :].to(x.dtype), sin[:, None, :].to(x.dtype)
    even, odd = paired[..., 0], paired[..., 1]
    turned = torch.stack((even * c - odd * s, even * s + odd * c), dim=-1).reshape(x.shape[0], rotated)
    return torch.cat((turned, x[:, rotated:]), dim=1)


def _check_rotary(weight: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, rotated: int) -> None:
    head_dim = 2 * cos.shape[1]
    if cos.shape != sin.shape:
        raise ValueError(f"cos {tuple(cos.shape)} and sin {tuple(sin.shape)} differ in shape")
    if not 0 <= rotated <= weight.shape[0] or rotated % head_dim or weight.shape[0] % head_dim:
        raise ValueError(
            f"rotated is {rotated} of {weight.shape[0]} columns; both must be whole heads of {head_dim}, as of cos"
        )


def _check_head_norm(norm: HeadNorm, head_dim: int, rotated: int) -> None:
    if norm.gain.shape != (2, head_dim) or not 0 <= norm.queries <= rotated // head_dim:
        raise ValueError(
            f"a head norm has a gain of (2, {head_dim}), not {tuple(norm.gain.shape)}, "
            f"and at most {rotated // head_dim} query heads, not {norm.queries}"
        )


_PROGRAMS: dict[tuple[bool, int], Epilogue] = {}  # by whether heads are normed, and their size


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _define(is_normed: bool, head_dim: int) -> None:
    """Make sure of a program. torch.compile runs this while it traces, and could not trace it."""
    if (is_normed, head_dim) not in _PROGRAMS:
        make = programs.normed_rotary if is_normed else programs.rotary
        _PROGRAMS[is_normed, head_dim] = make(head_dim)


def _program(is_normed: bool, head_dim: int) -> Epilogue:
    _define(is_normed, head_dim)
    return _PROGRAMS[is_normed, head_dim]


class _QkvProjection(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        h: torch.Tensor,
        rstd: torch.Tensor,
        weight: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        rotated: int,
    ) -> torch.Tensor:
        program = _program(False, 2 * cos.shape[1])
        y = gemm(h, weight.t(), program, rstd=rstd, cos=cos, sin=sin, rotated=float(rotated))["out"]
        ctx.rotated = rotated
        ctx.save_for_backward(h, rstd, weight, cos, sin, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h, rstd, weight, cos, sin, y = ctx.saved_tensors
        heads = ctx.rotated // (2 * cos.shape[1])
        dz, dot = rotate_back(dy.contiguous(), y, cos, sin, heads, is_paired=True)
        dh, dweight = norm_linear_backward(
            dz, weight, h=h, dy=None, rstd=rstd, dot=dot, needs_weight=ctx.needs_input_grad[2]
        )
        return dh, None, dweight, None, None, None


class _NormedQkvProjection(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes them by position
        ctx: Any,
        h: torch.Tensor,
        rstd: torch.Tensor,
        weight: torch.Tensor,
        gain: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        fixed: tuple[int, int, float],
    ) -> torch.Tensor:
        rotated, queries, eps = fixed
        head_dim = 2 * cos.shape[1]
        counts = (queries, weight.shape[0] // head_dim - queries)  # the values' columns take no notice of theirs
        columns = torch.cat([one.repeat(count) for one, count in zip(gain, counts, strict=True)])
        made = gemm(
            h,
            weight.t(),
            _program(True, head_dim),
            rstd=rstd,
            cos=cos,
            sin=sin,
            gain=columns,
            rotated=float(rotated),
            eps=eps,
        )
        ctx.fixed = fixed
        ctx.save_for_backward(h, rstd, weight, gain, cos, sin, made["z"])
        return made["out"]

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h, rstd, weight, gain, cos, sin, z = ctx.saved_tensors
        rotated, queries, eps = ctx.fixed
        needs = ctx.needs_input_grad
        norm, heads = HeadNorm(gain, queries, eps), rotated // (2 * cos.shape[1])
        dz, dot, dgain = norm_heads_backward(dy, z, norm, cos, sin, heads, needs_gain=needs[3], is_paired=True)
        dh, dweight = norm_linear_backward(dz, weight, h=h, dy=None, rstd=rstd, dot=dot, needs_weight=needs[2])
        return dh, None, dweight, None if dgain is None else dgain.to(gain.dtype), None, None, None


def output_projection(
    o: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor, *, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """residual + o · weightᵀ, and its rstd (M,) for the next norm. Differentiable in all three tensors.

    o (M, K), weight (D, K), residual (M, D). As in `mlp`, the statistic carries no gradient.
    """
    made: tuple[torch.Tensor, torch.Tensor] = _OutputProjection.apply(o, weight, residual, eps)  # type: ignore[no-untyped-call]
    return made


class _OutputProjection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, o: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        results = gemm(o, weight.t(), programs.residual_norm, residual=residual, eps=eps)
        ctx.save_for_backward(o, weight)
        ctx.mark_non_differentiable(results["rstd"])
        return results["out"], results["rstd"]

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor, _drstd: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        o, weight = ctx.saved_tensors
        dy = dy.contiguous()
        do = matmul(dy, weight) if ctx.needs_input_grad[0] else None
        dweight = matmul(dy.t(), o) if ctx.needs_input_grad[1] else None
        return do, dweight, dy, None
