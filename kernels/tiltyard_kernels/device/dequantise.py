"""A quantised weight widened once: what a product of many rows reads."""

import triton
import triton.language as tl

from tiltyard_kernels.device.skinny import group_scale, packed_block


@triton.jit
def dequantise_kernel(
    out,  # (N, K), contiguous
    w,
    scale,
    zero,
    second,
    code,
    code2,
    offset,
    N,
    K,
    GROUPS,
    FORMAT: tl.constexpr,
    SCALE: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    k = tl.program_id(0) * BK
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    row = tl.minimum(n, N - 1)
    columns = k + tl.arange(0, BK)
    inside = (n < N)[:, None] & (columns < K)[None, :]
    group = k // GROUP
    if FORMAT == "wide":
        widening = tl.load(scale + row).to(tl.float32)
    else:
        widening = group_scale(scale, second, code2, offset, row, group, GROUPS, SCALE)
    if FORMAT == "int4" or FORMAT == "lut4":
        low, high = packed_block(w, n, k, N, K, BK)
        if FORMAT == "int4":
            base = tl.full((BN,), 8.0, tl.float32)
            if HAS_ZERO:
                base = tl.load(zero + row.to(tl.int64) * GROUPS + group).to(tl.float32)
            even = low.to(tl.float32) - base[:, None]
            odd = high.to(tl.float32) - base[:, None]
        else:
            even = tl.load(code + low.to(tl.int32))
            odd = tl.load(code + high.to(tl.int32))
        values = tl.reshape(tl.join(even, odd), (BN, BK))
    else:
        values = tl.load(w + n[:, None].to(tl.int64) * K + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    values = (values * widening[:, None]).to(out.dtype.element_ty)
    tl.store(out + n[:, None].to(tl.int64) * K + columns[None, :], values, mask=inside)
