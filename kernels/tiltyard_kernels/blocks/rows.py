"""RMSNorm and RoPE over rows: the kernel where there is one, else the same in PyTorch."""

from __future__ import annotations

import torch

from tiltyard_kernels.gemm.execute import runs_in_triton


def rms_norm(
    h: torch.Tensor, gain: torch.Tensor, eps: float, *, dtype: torch.dtype, rstd: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(norm(h) · gain in `dtype`, rstd (M,) float32) of h (M, D); a known `rstd` is not computed again."""
    if not (runs_in_triton(h) and h.dtype != torch.float64 and h.numel()):
        wide = h.to(torch.promote_types(h.dtype, torch.float32))
        found = torch.rsqrt(wide.square().mean(1) + eps) if rstd is None else rstd
        return (wide * found[:, None] * gain.to(wide.dtype)).to(dtype), found
    from tiltyard_kernels.device.rows import rms_norm_kernel  # noqa: PLC0415  # only where Triton is there

    h = h if h.stride(1) == 1 else h.contiguous()
    rows, columns = h.shape
    x = torch.empty(rows, columns, dtype=dtype, device=h.device)
    found = torch.empty(rows, dtype=torch.float32, device=h.device) if rstd is None else rstd
    block = min(4096, 1 << (columns - 1).bit_length())
    rms_norm_kernel[(rows,)](
        h, h.stride(0), gain, x, found, columns, eps, HAS_RSTD=rstd is not None, BLOCK=block, num_warps=8
    )
    return x, found


def rotate_half(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int, *, sign: float = 1.0
) -> torch.Tensor:
    """RoPE in Hugging Face's layout on the first `heads` heads of x (M, N); cos and sin (M, head_dim / 2). With sign −1
    back again."""
    return _rotated(x, cos, sin, heads, sign, None)[0]


def rotate_back(
    dy: torch.Tensor, y: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int, *, is_paired: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """(dy rotated back, Σ y · dy of each row in float32). `is_paired`: neighbouring columns turn together (`layouts`),
    in place of a head's two halves."""
    turned, dot = _rotated(dy, cos, sin, heads, -1.0, y, is_paired=is_paired)
    assert dot is not None  # noqa: S101  # asked for
    return turned, dot


def _rotated(  # noqa: PLR0917  # both directions' arguments
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    heads: int,
    sign: float,
    y: torch.Tensor | None,
    *,
    is_paired: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    half = cos.shape[1]
    if not (runs_in_triton(x) and x.dtype != torch.float64 and x.numel()):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        turned = wide.clone()
        shape, pair = ((heads, half, 2), 3) if is_paired else ((heads, 2, half), 2)
        left, right = wide[:, : heads * 2 * half].unflatten(1, shape).unbind(pair)  # type: ignore[no-untyped-call]
        c, s = cos[:, None, :].to(wide.dtype), sign * sin[:, None, :].to(wide.dtype)
        both = torch.stack((left * c - right * s, right * c + left * s), pair)
        turned[:, : heads * 2 * half] = both.flatten(1)
        return turned.to(x.dtype), None if y is None else (wide * y).sum(1)
    from tiltyard_kernels.device.rows import rotary_kernel  # noqa: PLC0415  # only where Triton is there

    x = x.contiguous()
    rows, columns = x.shape
    out = torch.empty_like(x)
    dot = None if y is None else torch.empty(rows, dtype=torch.float32, device=x.device)
    rotary_kernel[(rows,)](
        x,
        out,
        y,
        dot,
        cos.contiguous(),
        sin.contiguous(),
        sign,
        columns,
        heads,
        HAS_DOT=y is not None,
        PAIRED=is_paired,
        **head_blocks(half, columns),
    )
    return out, dot


def head_blocks(half: int, columns: int) -> dict[str, int]:
    """What the kernels over a row's heads of 2 · half columns are compiled for: four warps read about a thousand pairs
    at once, 16 bytes a thread and side."""
    block = 1 << (half - 1).bit_length()
    heads = max(1, columns // (2 * half))
    return {
        "HALF": half,
        "BLOCK": block,
        "GROUP": min(max(1, 1024 // block), 1 << (heads - 1).bit_length()),
        "num_warps": 4,
    }
