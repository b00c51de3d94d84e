"""Small passes over rows: RMSNorm before a product, and RoPE after one, in either direction."""

import triton
import triton.language as tl


@triton.jit
def rms_norm_kernel(h, h_stride, gain, x, rstd, D, eps, HAS_RSTD: tl.constexpr, BLOCK: tl.constexpr):
    """x = h · rstd · gain, one program a row. The statistic is computed and written, or read if HAS_RSTD."""
    row = tl.program_id(0).to(tl.int64)
    if HAS_RSTD:
        scale = tl.load(rstd + row)
    else:
        squares = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, D, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            value = tl.load(h + row * h_stride + columns, mask=columns < D, other=0.0).to(tl.float32)
            squares += value * value
        scale = 1.0 / tl.sqrt(tl.sum(squares, 0) / D + eps)
        tl.store(rstd + row, scale)
    for start in range(0, D, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        value = tl.load(h + row * h_stride + columns, mask=columns < D, other=0.0).to(tl.float32)
        weight = tl.load(gain + columns, mask=columns < D, other=0.0).to(tl.float32)
        tl.store(x + row * D + columns, (value * scale * weight).to(x.dtype.element_ty), mask=columns < D)


@triton.jit
def rotary_kernel(
    x,  # (M, N), overwritten or read
    out,  # (M, N); may be x
    y,  # (M, N), if HAS_DOT: what `dot` multiplies x with
    dot,  # (M,) float32, if HAS_DOT: Σ x · y over a row
    cos,  # (M, HALF)
    sin,
    sign,
    N,
    HEADS,  # how many heads, from the first column on, are rotated
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,  # a power of two of at least HALF
    HAS_DOT: tl.constexpr,
):
    """Rotate the first half of each head against its second, as Hugging Face's Llama does; other columns are copied."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    inside = lane < HALF
    c = tl.load(cos + row * HALF + lane, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + row * HALF + lane, mask=inside, other=0.0).to(tl.float32) * sign
    total = tl.zeros((BLOCK,), tl.float32)
    for head in range(N // (2 * HALF)):
        first = row * N + head * 2 * HALF + lane
        left = tl.load(x + first, mask=inside, other=0.0).to(tl.float32)
        right = tl.load(x + first + HALF, mask=inside, other=0.0).to(tl.float32)
        if HAS_DOT:
            total += left * tl.load(y + first, mask=inside, other=0.0).to(tl.float32)
            total += right * tl.load(y + first + HALF, mask=inside, other=0.0).to(tl.float32)
        is_rotated = head < HEADS
        new_left = tl.where(is_rotated, left * c - right * s, left)
        new_right = tl.where(is_rotated, right * c + left * s, right)
        tl.store(out + first, new_left.to(out.dtype.element_ty), mask=inside)
        tl.store(out + first + HALF, new_right.to(out.dtype.element_ty), mask=inside)
    if HAS_DOT:
        tl.store(dot + row, tl.sum(total, 0))
