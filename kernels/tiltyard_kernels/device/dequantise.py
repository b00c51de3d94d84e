"""A quantised weight widened once: what a product of many rows reads."""

import triton
import triton.language as tl

from tiltyard_kernels.device.skinny import group_scale, packed_bytes


@triton.jit
def dequantise_kernel(
    out,  # (N, K), rows `out_stride` apart
    out_stride,
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
    pitch,  # bytes from row to row of a four-bit weight
    FORMAT: tl.constexpr,
    SCALE: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    EVEN: tl.constexpr,
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
        codes = packed_bytes(w, n, k, N, K, pitch, BK, EVEN).to(tl.int32)
        low, high = codes & 15, codes >> 4
        if FORMAT == "int4":
            base = tl.full((BN,), 8.0, tl.float32)
            if HAS_ZERO:
                base = tl.load(zero + row.to(tl.int64) * GROUPS + group).to(tl.float32)
            even = low.to(tl.float32) - base[:, None]
            odd = high.to(tl.float32) - base[:, None]
        else:
            even = tl.load(code + low)
            odd = tl.load(code + high)
        values = tl.reshape(tl.join(even, odd), (BN, BK))
    else:
        address = w + n[:, None].to(tl.int64) * K + columns[None, :]
        values = tl.load(address) if EVEN else tl.load(address, mask=inside, other=0.0)
        values = values.to(tl.float32)
    values = (values * widening[:, None]).to(out.dtype.element_ty)
    address = out + n[:, None].to(tl.int64) * out_stride + columns[None, :]
    if EVEN:
        tl.store(address, values)
    else:
        tl.store(address, values, mask=inside)
