"""DoRA's backward: a gradient through a factor for each column, in one pass over it."""

import triton
import triton.language as tl


@triton.jit
def factor_kernel(
    dy,  # (M, N)
    dy_stride,
    z,  # (M, N), contiguous: what was multiplied by the factor
    factor,  # (N,)
    scaled,  # (M, N), contiguous
    columns_sum,  # (splits, N) partials of Σ dy · z over the rows
    rows_sum,  # (column blocks, M) partials of Σ dy · factor · z over the columns
    M,
    N,
    per_split,  # rows for each program along the second axis, a multiple of BLOCK_M
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ACC: tl.constexpr,
):
    """scaled = dy ⊙ factor, with both sums."""
    block = tl.program_id(0)
    split = tl.program_id(1)
    columns = block * BLOCK_N + tl.arange(0, BLOCK_N)
    in_columns = columns < N
    scale = tl.load(factor + columns, mask=in_columns, other=0.0).to(ACC)[None, :]
    total = tl.zeros((BLOCK_N,), ACC)
    for start in range(split * per_split, min((split + 1) * per_split, M), BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        wide = rows[:, None].to(tl.int64)
        inside = (rows[:, None] < M) & in_columns[None, :]
        gradient = tl.load(dy + wide * dy_stride + columns[None, :], mask=inside, other=0.0).to(ACC)
        value = tl.load(z + wide * N + columns[None, :], mask=inside, other=0.0).to(ACC)
        product = gradient * value
        total += tl.sum(product, 0)
        tl.store(rows_sum + block.to(tl.int64) * M + rows, tl.sum(product * scale, 1), mask=rows < M)
        tl.store(scaled + wide * N + columns[None, :], (gradient * scale).to(scaled.dtype.element_ty), mask=inside)
    tl.store(columns_sum + split.to(tl.int64) * N + columns, total, mask=in_columns)
