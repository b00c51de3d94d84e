"""Dropout before adapters, whose masks are never kept: they are drawn again, from a seed, wherever they are needed.

Philox 4x32 with ten rounds (Salmon et al., SC 2011) makes four words of (seed, row, column // 4), one for each of four
neighbouring columns. A number is kept if the upper 31 bits of its word are at least `threshold`, the rate in units of
2^-31. So a mask depends on nothing but its seed: neither tiles nor splits nor the kernel that asks.
"""

import triton
import triton.language as tl


@triton.jit
def _kept(seed, rows, first_column, threshold, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr):
    """(BLOCK_M, BLOCK_K): which numbers stay, of `rows` and the columns from `first_column`, a multiple of 4."""
    row = rows[:, None].to(tl.int32) + tl.zeros((BLOCK_M, BLOCK_K // 4), tl.int32)
    group = (first_column // 4 + tl.arange(0, BLOCK_K // 4))[None, :].to(tl.int32) + tl.zeros_like(row)
    zero = tl.zeros_like(row)
    word0, word1, word2, word3 = tl.philox(seed, row, group, zero, zero)
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3)).reshape(BLOCK_M, BLOCK_K)
    return (words >> 1).to(tl.int32) >= threshold


@triton.jit
def drop_kernel(
    x,  # (M, K)
    x_stride,
    out,  # (M, K), contiguous
    seeds,
    index,  # which of the seeds
    threshold,
    gain,  # 1 / (1 − rate)
    M,
    K,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out = x where kept, times `gain`; else 0."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    first = tl.program_id(1) * BLOCK_K
    columns = first + tl.arange(0, BLOCK_K)
    inside = (rows[:, None] < M) & (columns[None, :] < K)
    wide = rows[:, None].to(tl.int64)
    value = tl.load(x + wide * x_stride + columns[None, :], mask=inside, other=0.0)
    kept = _kept(tl.load(seeds + index), rows, first, threshold, BLOCK_M, BLOCK_K)
    value = tl.where(kept, value * gain, 0.0).to(out.dtype.element_ty)
    tl.store(out + wide * K + columns[None, :], value, mask=inside)


@triton.jit
def project_kernel(
    x,  # (M, K)
    x_stride,
    a,  # (adapters · rank, K)
    a_stride,
    partial,  # (splits, M, adapters · rank)
    seeds,
    index,  # of the first adapter's seed
    threshold,
    gain,
    M,
    K,
    rank,
    per_split,  # columns of x for each program along the second axis, a multiple of BLOCK_K
    RANK: tl.constexpr,  # a power of two of at least rank and 16
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ACC: tl.constexpr,
):
    """partial[split] = dropout(x) · aᵀ over a part of the columns, for adapters of one rank and rate along the grid's
    third axis: what reads x first leaves it in the L2 cache for the others."""
    split = tl.program_id(1)
    adapter = tl.program_id(2)
    a += adapter * rank * a_stride
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    wide = rows[:, None].to(tl.int64)
    ranks = tl.arange(0, RANK)
    seed = tl.load(seeds + index + adapter)
    acc = tl.zeros((BLOCK_M, RANK), ACC)
    for first in range(split * per_split, min((split + 1) * per_split, K), BLOCK_K):
        columns = first + tl.arange(0, BLOCK_K)
        inside = columns < K
        value = tl.load(x + wide * x_stride + columns[None, :], mask=(rows[:, None] < M) & inside[None, :], other=0.0)
        kept = _kept(seed, rows, first, threshold, BLOCK_M, BLOCK_K)
        value = tl.where(kept, value, tl.zeros_like(value))
        # Read as (BLOCK_K, RANK), the transpose.
        block = tl.load(
            a + ranks[None, :] * a_stride + columns[:, None], mask=(ranks[None, :] < rank) & inside[:, None], other=0.0
        )
        acc = tl.dot(value, block, acc, input_precision="ieee", out_dtype=ACC)
    row_length = rank * tl.num_programs(2)
    place = partial + (split.to(tl.int64) * M + wide) * row_length + adapter * rank + ranks[None, :]
    tl.store(place, acc * gain, mask=(rows[:, None] < M) & (ranks[None, :] < rank))


@triton.jit
def gradient_kernel(
    dp,  # (M, rank)
    dp_stride,
    x,  # (M, K), if HAS_DA
    x_stride,
    a,  # (rank, K)
    a_stride,
    extra,  # (M, K), contiguous, if HAS_DX
    partial,  # (splits, rank, K), if HAS_DA
    seeds,
    index,
    threshold,
    gain,
    M,
    K,
    rank,
    per_split,  # rows for each program along the second axis, a multiple of BLOCK_M
    RANK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_DX: tl.constexpr,
    HAS_DA: tl.constexpr,
    ADDS: tl.constexpr,  # whether `extra` has another adapter's part already
    ACC: tl.constexpr,
):
    """extra (+)= mask ⊙ (dp · a) · gain and partial[split] = dpᵀ · dropout(x) over a part of the rows."""
    first = tl.program_id(0) * BLOCK_K
    split = tl.program_id(1)
    columns = first + tl.arange(0, BLOCK_K)
    in_columns = columns[None, :] < K
    ranks = tl.arange(0, RANK)
    seed = tl.load(seeds + index)
    if HAS_DX:
        block = tl.load(
            a + ranks[:, None] * a_stride + columns[None, :], mask=(ranks[:, None] < rank) & in_columns, other=0.0
        )
    acc = tl.zeros((RANK, BLOCK_K), ACC)
    for start in range(split * per_split, min((split + 1) * per_split, M), BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        wide = rows[:, None].to(tl.int64)
        inside = (rows[:, None] < M) & in_columns
        pulled = tl.load(
            dp + wide * dp_stride + ranks[None, :], mask=(rows[:, None] < M) & (ranks[None, :] < rank), other=0.0
        )
        kept = _kept(seed, rows, first, threshold, BLOCK_M, BLOCK_K)
        if HAS_DX:
            part = tl.dot(pulled, block, input_precision="ieee", out_dtype=ACC) * gain
            part = tl.where(kept, part, 0.0)
            place = extra + wide * K + columns[None, :]
            if ADDS:
                part += tl.load(place, mask=inside, other=0.0)
            tl.store(place, part.to(extra.dtype.element_ty), mask=inside)
        if HAS_DA:
            value = tl.load(x + wide * x_stride + columns[None, :], mask=inside, other=0.0)
            value = tl.where(kept, value, tl.zeros_like(value))
            acc = tl.dot(tl.trans(pulled), value, acc, input_precision="ieee", out_dtype=ACC)
    if HAS_DA:
        place = partial + (split.to(tl.int64) * rank + ranks[:, None]) * K + columns[None, :]
        tl.store(place, acc * gain, mask=(ranks[:, None] < rank) & in_columns)
