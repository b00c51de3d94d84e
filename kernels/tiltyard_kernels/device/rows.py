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
    PAIRED: tl.constexpr,
):
    """Rotate the first half of each head against its second, as Hugging Face's Llama does, or if PAIRED its even
    columns against its odd ones; other columns are copied."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    inside = lane < HALF
    c = tl.load(cos + row * HALF + lane, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + row * HALF + lane, mask=inside, other=0.0).to(tl.float32) * sign
    total = tl.zeros((BLOCK,), tl.float32)
    for head in range(N // (2 * HALF)):
        first = row * N + head * 2 * HALF
        left, right = _two_sides(x + first, HALF, BLOCK, PAIRED)
        if HAS_DOT:
            y_left, y_right = _two_sides(y + first, HALF, BLOCK, PAIRED)
            total += left * y_left + right * y_right
        is_rotated = head < HEADS
        new_left = tl.where(is_rotated, left * c - right * s, left).to(out.dtype.element_ty)
        new_right = tl.where(is_rotated, right * c + left * s, right).to(out.dtype.element_ty)
        if PAIRED:
            both = tl.arange(0, 2 * BLOCK)
            tl.store(out + first + both, tl.interleave(new_left, new_right), mask=both < 2 * HALF)
        else:
            tl.store(out + first + lane, new_left, mask=inside)
            tl.store(out + first + HALF + lane, new_right, mask=inside)
    if HAS_DOT:
        tl.store(dot + row, tl.sum(total, 0))


@triton.jit
def _two_sides(x, HALF: tl.constexpr, BLOCK: tl.constexpr, PAIRED: tl.constexpr):
    """What turns against each other in one head, float32."""
    if PAIRED:
        both = tl.arange(0, 2 * BLOCK)
        value = tl.load(x + both, mask=both < 2 * HALF, other=0.0).to(tl.float32)
        left, right = tl.split(tl.reshape(value, (BLOCK, 2)))
    else:
        lane = tl.arange(0, BLOCK)
        left = tl.load(x + lane, mask=lane < HALF, other=0.0).to(tl.float32)
        right = tl.load(x + HALF + lane, mask=lane < HALF, other=0.0).to(tl.float32)
    return left, right
