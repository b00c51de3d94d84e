"""Passes around fp8 products: rows of activations quantised with a scale each, and a weight's codes transposed.

The tensor cores multiply fp8 by rows and by columns only as a forward has it, both operands contiguous along the
reduction. So dX takes the weight transposed, which is one pass over its bytes.
"""

import triton
import triton.language as tl


@triton.jit
def quantise_rows_kernel(
    x,  # (M, K)
    x_stride,
    fold,  # (K,) float32, if HAS_FOLD
    out,  # (M, K)
    scale,  # (M,) float32
    K,
    LIMIT: tl.constexpr,  # the largest number of out's type
    HAS_FOLD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out · scale = x ⊙ fold with a scale a row, one program a row. It is read twice, the second time from a cache."""
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, K, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * x_stride + columns, mask=columns < K, other=0.0).to(tl.float32)
        if HAS_FOLD:
            value *= tl.load(fold + columns, mask=columns < K, other=0.0)
        largest = tl.maximum(largest, tl.abs(value))
    factor = tl.maximum(tl.max(largest, 0) / LIMIT, 1e-12)
    tl.store(scale + row, factor)
    for start in range(0, K, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * x_stride + columns, mask=columns < K, other=0.0).to(tl.float32)
        if HAS_FOLD:
            value *= tl.load(fold + columns, mask=columns < K, other=0.0)
        tl.store(out + row * K + columns, (value / factor).to(out.dtype.element_ty), mask=columns < K)


@triton.jit
def transpose_kernel(
    x,  # (N, K) bytes
    other,  # (N, K) bytes, if PAIRED
    out,  # (K, ...) bytes, rows `out_stride` apart
    out_stride,
    N,
    K,
    PAIRED: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """out = xᵀ; if PAIRED its columns are x's and other's rows in turn."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    inside = (n < N)[:, None] & (k < K)[None, :]
    place = n[:, None].to(tl.int64) * K + k[None, :]
    values = tl.trans(tl.load(x + place, mask=inside, other=0))
    if PAIRED:
        values = tl.interleave(values, tl.trans(tl.load(other + place, mask=inside, other=0)))
        columns = tl.program_id(0) * 2 * BN + tl.arange(0, 2 * BN)
        address = out + k[:, None].to(tl.int64) * out_stride + columns[None, :]
        tl.store(address, values, mask=(k < K)[:, None] & (columns < 2 * N)[None, :])
    else:
        address = out + k[:, None].to(tl.int64) * out_stride + n[None, :]
        tl.store(address, values, mask=(k < K)[:, None] & (n < N)[None, :])
