"""RMSNorm of each query and key head, then RoPE (Qwen 3's qk-norm): the kernel where there is one, else PyTorch.

A head z of d numbers becomes RoPE(γ ⊙ r · z) with r = rsqrt(mean(z²) + eps). Backward, with n the gradient rotated back
and w = γ ⊙ n: dz = r · (w − r² · mean(w ⊙ z) · z), and dγ is the sum of r · z ⊙ n over rows and heads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from tiltyard_kernels.blocks.rows import head_blocks, rotate_back, rotate_half
from tiltyard_kernels.gemm.execute import runs_in_triton


class HeadNorm(NamedTuple):
    """gain (2, head_dim): the queries' weight, then the keys'. The first `queries` heads of a row are queries."""

    gain: torch.Tensor
    queries: int
    eps: float


def norm_heads(z: torch.Tensor, norm: HeadNorm, cos: torch.Tensor, sin: torch.Tensor, heads: int) -> torch.Tensor:
    """z (M, N) with its first `heads` heads normed and rotated; cos and sin (M, head_dim / 2)."""
    if not _in_triton(z):
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        return rotate_half(_normed(wide, norm, heads), cos.to(wide.dtype), sin.to(wide.dtype), heads).to(z.dtype)
    from tiltyard_kernels.device.rows import head_norm_kernel  # noqa: PLC0415  # only where Triton is there

    z = z.contiguous()
    out = torch.empty_like(z)
    given, sizes = _for_kernels(z, norm, cos, sin, heads)
    head_norm_kernel[(len(z),)](z, out, *given, **sizes)
    return out


def norm_heads_backward(  # noqa: PLR0917  # what the pass takes
    dy: torch.Tensor,
    z: torch.Tensor,
    norm: HeadNorm,
    cos: torch.Tensor,
    sin: torch.Tensor,
    heads: int,
    *,
    needs_gain: bool,
    is_paired: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(dz (M, N), Σ z · dz of each row in float32, dγ (2, head_dim) in float32 if it is needed).

    `is_paired`: neighbouring columns turn together (`layouts`), and the gain is in their order.
    """
    if not _in_triton(z):
        return _backward_in_torch(dy, z, norm, cos, sin, heads, needs_gain=needs_gain, is_paired=is_paired)
    from tiltyard_kernels.device.rows import head_norm_backward_kernel  # noqa: PLC0415

    dy, z = dy.contiguous(), z.contiguous()
    rows, half = len(z), cos.shape[1]
    dz = torch.empty_like(dy)
    dot = torch.empty(rows, dtype=torch.float32, device=z.device)
    dgain = torch.empty(rows, 2, 2 * half, dtype=torch.float32, device=z.device) if needs_gain else None
    given, sizes = _for_kernels(z, norm, cos, sin, heads)
    head_norm_backward_kernel[(rows,)](dy, z, dz, dot, dgain, *given, HAS_DGAIN=needs_gain, PAIRED=is_paired, **sizes)
    return dz, dot, None if dgain is None else dgain.sum(0)


def _for_kernels(
    z: torch.Tensor, norm: HeadNorm, cos: torch.Tensor, sin: torch.Tensor, heads: int
) -> tuple[tuple[Any, ...], dict[str, int]]:
    """What both kernels take beside their matrices: arguments, and what is fixed when they are compiled."""
    given = (norm.gain.contiguous(), cos.contiguous(), sin.contiguous(), norm.eps, z.shape[1], norm.queries, heads)
    return given, head_blocks(cos.shape[1], z.shape[1])


def _in_triton(z: torch.Tensor) -> bool:
    return runs_in_triton(z) and z.dtype != torch.float64 and z.numel() > 0


def _gain_of(norm: HeadNorm, heads: int, dtype: torch.dtype) -> torch.Tensor:
    """(heads, head_dim)."""
    query, key = norm.gain.to(dtype)
    return torch.cat((query.expand(norm.queries, -1), key.expand(heads - norm.queries, -1)))


def _normed(wide: torch.Tensor, norm: HeadNorm, heads: int) -> torch.Tensor:
    width = heads * norm.gain.shape[1]
    parts = wide[:, :width].unflatten(1, (heads, -1))  # type: ignore[no-untyped-call]
    rstd = torch.rsqrt(parts.square().mean(2, keepdim=True) + norm.eps)
    return torch.cat(((parts * rstd * _gain_of(norm, heads, wide.dtype)).flatten(1), wide[:, width:]), 1)


def _backward_in_torch(  # noqa: PLR0917  # as above
    dy: torch.Tensor,
    z: torch.Tensor,
    norm: HeadNorm,
    cos: torch.Tensor,
    sin: torch.Tensor,
    heads: int,
    *,
    needs_gain: bool,
    is_paired: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    wide = z.to(torch.promote_types(z.dtype, torch.float32))
    width = heads * norm.gain.shape[1]
    turned = rotate_back(dy.to(wide.dtype), wide, cos, sin, heads, is_paired=is_paired)[0]
    parts, back = (part[:, :width].unflatten(1, (heads, -1)) for part in (wide, turned))  # type: ignore[no-untyped-call]
    rstd = torch.rsqrt(parts.square().mean(2, keepdim=True) + norm.eps)
    weighted = _gain_of(norm, heads, wide.dtype) * back
    pull = rstd.square() * (weighted * parts).mean(2, keepdim=True)
    dz = torch.cat(((rstd * (weighted - pull * parts)).flatten(1), turned[:, width:]), 1)
    dgain = None
    if needs_gain:
        shares = (rstd * parts * back).sum(0)
        dgain = torch.stack((shares[: norm.queries].sum(0), shares[norm.queries :].sum(0)))
    return dz.to(dy.dtype), (wide * dz).sum(1), dgain
