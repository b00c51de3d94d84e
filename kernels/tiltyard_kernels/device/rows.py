"""Small passes over rows: RMSNorm before a product, and RoPE and head norms after one, in either direction."""

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
        _store_sides(out + first, new_left, new_right, HALF, BLOCK, PAIRED)
    if HAS_DOT:
        tl.store(dot + row, tl.sum(total, 0))


@triton.jit
def head_norm_kernel(
    z,  # (M, N)
    out,  # (M, N); may be z
    gain,  # (2, 2 · HALF): of the query heads, then of the key heads
    cos,  # (M, HALF)
    sin,
    eps,
    N,
    QUERIES,  # how many heads, from the first column on, are queries
    HEADS,  # and how many are queries or keys
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,  # a power of two of at least HALF
):
    """RMSNorm of each query and key head and RoPE in Hugging Face's layout, one program a row; other columns are
    copied."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    inside = lane < HALF
    c = tl.load(cos + row * HALF + lane, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + row * HALF + lane, mask=inside, other=0.0).to(tl.float32)
    for head in range(N // (2 * HALF)):
        first = row * N + head * 2 * HALF
        left, right = _two_sides(z + first, HALF, BLOCK, False)
        gain_left, gain_right = _two_sides(gain + tl.where(head < QUERIES, 0, 2 * HALF), HALF, BLOCK, False)
        rstd = _head_rstd(left, right, eps, HALF)
        normed_left, normed_right = left * rstd * gain_left, right * rstd * gain_right
        is_normed = head < HEADS
        new_left = tl.where(is_normed, normed_left * c - normed_right * s, left).to(out.dtype.element_ty)
        new_right = tl.where(is_normed, normed_right * c + normed_left * s, right).to(out.dtype.element_ty)
        _store_sides(out + first, new_left, new_right, HALF, BLOCK, False)


@triton.jit
def head_norm_backward_kernel(
    dy,  # (M, N)
    z,  # (M, N), what the norm was given
    dz,  # (M, N); may be dy
    dot,  # (M,) float32: Σ z · dz over a row
    dgain,  # (M, 2, 2 · HALF) float32, if HAS_DGAIN: of each row
    gain,
    cos,
    sin,
    eps,
    N,
    QUERIES,
    HEADS,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_DGAIN: tl.constexpr,
    PAIRED: tl.constexpr,
):
    """The derivation is in `blocks.heads`; `back` is its n, `weighted` its w, `pull` its r² · mean(w ⊙ z)."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    inside = lane < HALF
    c = tl.load(cos + row * HALF + lane, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + row * HALF + lane, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    query_left = tl.zeros((BLOCK,), tl.float32)
    query_right = tl.zeros((BLOCK,), tl.float32)
    key_left = tl.zeros((BLOCK,), tl.float32)
    key_right = tl.zeros((BLOCK,), tl.float32)
    for head in range(N // (2 * HALF)):
        first = row * N + head * 2 * HALF
        dy_left, dy_right = _two_sides(dy + first, HALF, BLOCK, PAIRED)
        left, right = _two_sides(z + first, HALF, BLOCK, PAIRED)
        gain_left, gain_right = _two_sides(gain + tl.where(head < QUERIES, 0, 2 * HALF), HALF, BLOCK, PAIRED)
        rstd = _head_rstd(left, right, eps, HALF)
        back_left, back_right = dy_left * c + dy_right * s, dy_right * c - dy_left * s
        weighted_left, weighted_right = gain_left * back_left, gain_right * back_right
        pull = rstd * rstd * tl.sum(weighted_left * left + weighted_right * right, 0) / (2 * HALF)
        is_normed = head < HEADS
        new_left = tl.where(is_normed, rstd * (weighted_left - pull * left), dy_left)
        new_right = tl.where(is_normed, rstd * (weighted_right - pull * right), dy_right)
        total += left * new_left + right * new_right
        if HAS_DGAIN:
            share_left, share_right = rstd * left * back_left, rstd * right * back_right
            is_query, is_key = head < QUERIES, (head >= QUERIES) & is_normed
            query_left += tl.where(is_query, share_left, 0.0)
            query_right += tl.where(is_query, share_right, 0.0)
            key_left += tl.where(is_key, share_left, 0.0)
            key_right += tl.where(is_key, share_right, 0.0)
        _store_sides(
            dz + first, new_left.to(dz.dtype.element_ty), new_right.to(dz.dtype.element_ty), HALF, BLOCK, PAIRED
        )
    tl.store(dot + row, tl.sum(total, 0))
    if HAS_DGAIN:
        shares = dgain + row * 4 * HALF
        _store_sides(shares, query_left, query_right, HALF, BLOCK, PAIRED)
        _store_sides(shares + 2 * HALF, key_left, key_right, HALF, BLOCK, PAIRED)


@triton.jit
def _head_rstd(left, right, eps, HALF: tl.constexpr):
    """Of one head, whose lanes beyond HALF are zero."""
    return 1.0 / tl.sqrt(tl.sum(left * left + right * right, 0) / (2 * HALF) + eps)


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


@triton.jit
def _store_sides(x, left, right, HALF: tl.constexpr, BLOCK: tl.constexpr, PAIRED: tl.constexpr):
    """Where `_two_sides` would find them."""
    if PAIRED:
        both = tl.arange(0, 2 * BLOCK)
        tl.store(x + both, tl.interleave(left, right), mask=both < 2 * HALF)
    else:
        lane = tl.arange(0, BLOCK)
        tl.store(x + lane, left, mask=lane < HALF)
        tl.store(x + HALF + lane, right, mask=lane < HALF)
