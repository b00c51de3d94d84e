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
def rstd_kernel(
    partial,  # (PIECES, M)
    rstd,  # (M,)
    eps,
    PIECES,
    M,
    N,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """1 / √(Σ partial / N + eps) for ROWS rows, their pieces summed in order."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((BLOCK, ROWS), partial.dtype.element_ty)
    for first in range(0, PIECES, BLOCK):
        piece = first + tl.arange(0, BLOCK)
        inside = (piece < PIECES)[:, None] & (rows < M)[None, :]
        total += tl.load(partial + piece[:, None].to(tl.int64) * M + rows[None, :], mask=inside, other=0.0)
    tl.store(rstd + rows, 1.0 / tl.sqrt(tl.sum(total, 0) / N + eps), mask=rows < M)


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
    GROUP: tl.constexpr,  # how many heads at once
    HAS_DOT: tl.constexpr,
    PAIRED: tl.constexpr,
):
    """Rotate the first half of each head against its second, as Hugging Face's Llama does, or if PAIRED its even
    columns against its odd ones; other columns are copied."""
    row = tl.program_id(0).to(tl.int64)
    c, s = _turn(cos, sin, row, HALF, BLOCK)
    s *= sign
    heads = N // (2 * HALF)
    total = tl.zeros((GROUP, BLOCK), tl.float32)
    for head0 in range(0, heads, GROUP):
        head = head0 + tl.arange(0, GROUP)
        left, right = _two_sides(x + row * N, head, heads, HALF, BLOCK, GROUP, PAIRED)
        if HAS_DOT:
            y_left, y_right = _two_sides(y + row * N, head, heads, HALF, BLOCK, GROUP, PAIRED)
            total += left * y_left + right * y_right
        is_rotated = (head < HEADS)[:, None]
        new_left = tl.where(is_rotated, left * c - right * s, left)
        new_right = tl.where(is_rotated, right * c + left * s, right)
        _store_sides(out + row * N, new_left, new_right, head, heads, HALF, BLOCK, PAIRED)
    if HAS_DOT:
        tl.store(dot + row, tl.sum(tl.sum(total, 0), 0))


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
    GROUP: tl.constexpr,  # how many heads at once
):
    """RMSNorm of each query and key head and RoPE in Hugging Face's layout, one program a row; other columns are
    copied."""
    row = tl.program_id(0).to(tl.int64)
    c, s = _turn(cos, sin, row, HALF, BLOCK)
    heads = N // (2 * HALF)
    for head0 in range(0, heads, GROUP):
        head = head0 + tl.arange(0, GROUP)
        left, right = _two_sides(z + row * N, head, heads, HALF, BLOCK, GROUP, False)
        gain_left, gain_right = _two_sides(gain, (head >= QUERIES).to(tl.int32), 2, HALF, BLOCK, GROUP, False)
        rstd = _head_rstd(left, right, eps, HALF)
        normed_left, normed_right = left * rstd * gain_left, right * rstd * gain_right
        is_normed = (head < HEADS)[:, None]
        new_left = tl.where(is_normed, normed_left * c - normed_right * s, left)
        new_right = tl.where(is_normed, normed_right * c + normed_left * s, right)
        _store_sides(out + row * N, new_left, new_right, head, heads, HALF, BLOCK, False)


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
    GROUP: tl.constexpr,
    HAS_DGAIN: tl.constexpr,
    PAIRED: tl.constexpr,
):
    """The derivation is in `blocks.heads`; `back` is its n, `weighted` its w, `pull` its r² · mean(w ⊙ z)."""
    row = tl.program_id(0).to(tl.int64)
    c, s = _turn(cos, sin, row, HALF, BLOCK)
    heads = N // (2 * HALF)
    total = tl.zeros((GROUP, BLOCK), tl.float32)
    query_left = tl.zeros((GROUP, BLOCK), tl.float32)
    query_right = tl.zeros((GROUP, BLOCK), tl.float32)
    key_left = tl.zeros((GROUP, BLOCK), tl.float32)
    key_right = tl.zeros((GROUP, BLOCK), tl.float32)
    for head0 in range(0, heads, GROUP):
        head = head0 + tl.arange(0, GROUP)
        dy_left, dy_right = _two_sides(dy + row * N, head, heads, HALF, BLOCK, GROUP, PAIRED)
        left, right = _two_sides(z + row * N, head, heads, HALF, BLOCK, GROUP, PAIRED)
        gain_left, gain_right = _two_sides(gain, (head >= QUERIES).to(tl.int32), 2, HALF, BLOCK, GROUP, PAIRED)
        rstd = _head_rstd(left, right, eps, HALF)
        back_left, back_right = dy_left * c + dy_right * s, dy_right * c - dy_left * s
        weighted_left, weighted_right = gain_left * back_left, gain_right * back_right
        pull = rstd * rstd * tl.sum(weighted_left * left + weighted_right * right, 1)[:, None] / (2 * HALF)
        is_normed = (head < HEADS)[:, None]
        new_left = tl.where(is_normed, rstd * (weighted_left - pull * left), dy_left)
        new_right = tl.where(is_normed, rstd * (weighted_right - pull * right), dy_right)
        total += left * new_left + right * new_right
        if HAS_DGAIN:
            share_left, share_right = rstd * left * back_left, rstd * right * back_right
            is_query = (head < QUERIES)[:, None]
            is_key = is_normed & (head >= QUERIES)[:, None]
            query_left += tl.where(is_query, share_left, 0.0)
            query_right += tl.where(is_query, share_right, 0.0)
            key_left += tl.where(is_key, share_left, 0.0)
            key_right += tl.where(is_key, share_right, 0.0)
        _store_sides(dz + row * N, new_left, new_right, head, heads, HALF, BLOCK, PAIRED)
    tl.store(dot + row, tl.sum(tl.sum(total, 0), 0))
    if HAS_DGAIN:
        shares = dgain + row * 4 * HALF
        one = tl.arange(0, 1)
        for part in tl.static_range(2):
            left = tl.sum(key_left if part else query_left, 0)[None, :]
            right = tl.sum(key_right if part else query_right, 0)[None, :]
            _store_sides(shares + part * 2 * HALF, left, right, one, 1, HALF, BLOCK, PAIRED)


@triton.jit
def _turn(cos, sin, row, HALF: tl.constexpr, BLOCK: tl.constexpr):
    """A row's cosines and sines, (1, BLOCK) float32."""
    lane = tl.arange(0, BLOCK)
    c = tl.load(cos + row * HALF + lane, mask=lane < HALF, other=0.0).to(tl.float32)
    s = tl.load(sin + row * HALF + lane, mask=lane < HALF, other=0.0).to(tl.float32)
    return c[None, :], s[None, :]


@triton.jit
def _head_rstd(left, right, eps, HALF: tl.constexpr):
    """Of each head, (GROUP, 1); lanes beyond HALF are zero."""
    return 1.0 / tl.sqrt(tl.sum(left * left + right * right, 1)[:, None] / (2 * HALF) + eps)


@triton.jit
def _two_sides(x, head, heads, HALF: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr, PAIRED: tl.constexpr):
    """What turns against each other in each head of a row, twice (GROUP, BLOCK) float32; zero beyond the last head."""
    first = x + (head * 2 * HALF)[:, None]
    inside = (head < heads)[:, None]
    if PAIRED:
        both = tl.arange(0, 2 * BLOCK)[None, :]
        value = tl.load(first + both, mask=inside & (both < 2 * HALF), other=0.0).to(tl.float32)
        left, right = tl.split(tl.reshape(value, (GROUP, BLOCK, 2)))
    else:
        lane = tl.arange(0, BLOCK)[None, :]
        left = tl.load(first + lane, mask=inside & (lane < HALF), other=0.0).to(tl.float32)
        right = tl.load(first + HALF + lane, mask=inside & (lane < HALF), other=0.0).to(tl.float32)
    return left, right


@triton.jit
def _store_sides(x, left, right, head, heads, HALF: tl.constexpr, BLOCK: tl.constexpr, PAIRED: tl.constexpr):
    """Where `_two_sides` would find them, in the type of what is there."""
    first = x + (head * 2 * HALF)[:, None]
    inside = (head < heads)[:, None]
    left, right = left.to(x.dtype.element_ty), right.to(x.dtype.element_ty)
    if PAIRED:
        both = tl.arange(0, 2 * BLOCK)[None, :]
        tl.store(first + both, tl.interleave(left, right), mask=inside & (both < 2 * HALF))
    else:
        lane = tl.arange(0, BLOCK)[None, :]
        tl.store(first + lane, left, mask=inside & (lane < HALF))
        tl.store(first + HALF + lane, right, mask=inside & (lane < HALF))
