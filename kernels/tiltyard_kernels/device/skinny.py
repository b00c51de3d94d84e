"""Products with few rows, bound by reading the weight: x (M, K) · w, w dense or quantised, K cut into parts.

Theory of operation. A program owns BN columns of the result, one part of K and BM rows of x; it reads its share of the
weight once, in blocks of BK. The grid has enough programs to keep memory busy; where columns alone are too few, K is
cut into SPLIT parts, each of which leaves float32 sums in a workspace, and `join_kernel` adds the parts in order, joins
the adapter's P · Q and runs the epilogue. So results are the same in every run, without atomics. The mainloop uses the
same join where its tiles are too few.

With one row of a dense or 8-bit weight (FMA) there is no matrix product: each thread multiplies what it has read and
sums at the end. Otherwise rows are padded to 16 for the tensor cores, which wait for memory anyway.

A quantised weight is widened in registers, block by block. Of four-bit formats the even and the odd columns come from
one byte; they are multiplied with the even and the odd columns of x, so that nothing has to be interleaved.
"""

import triton
import triton.language as tl


@triton.jit
def group_scale(scale, second, code2, offset, n, group, GROUPS, SCALE: tl.constexpr):
    """The scale of each row's group, float32. `double` is NF4's: absmax itself quantised to 8 bits in blocks of 256."""
    index = n.to(tl.int64) * GROUPS + group
    if SCALE == "plain":
        return tl.load(scale + index).to(tl.float32)
    elif SCALE == "e8m0":
        return tl.exp2(tl.load(scale + index).to(tl.float32) - 127.0)
    else:
        coded = tl.load(code2 + tl.load(scale + index).to(tl.int32))
        return coded * tl.load(second + index // 256) + offset


@triton.jit
def packed_block(w, n, k, N, K, BK: tl.constexpr):
    """The codes of even and odd columns, each (BN, BK / 2) int16, of a block of a four-bit weight; 0 outside it."""
    byte = k // 2 + tl.arange(0, BK // 2)
    inside = (n < N)[:, None] & (byte < K // 2)[None, :]
    packed = tl.load(w + n[:, None].to(tl.int64) * (K // 2) + byte[None, :], mask=inside, other=0).to(tl.int16)
    return packed & 15, packed >> 4


@triton.jit
def as_floats(codes, DTYPE: tl.constexpr):
    """Codes 0…15 plus `float_base(DTYPE)`, exactly: put into the last bits of that power of two, which costs one
    operation where a conversion takes four times as long."""
    if tl.bfloat16 == DTYPE:
        return (codes | 0x4300).to(tl.bfloat16, bitcast=True)
    elif tl.float16 == DTYPE:
        return (codes | 0x6400).to(tl.float16, bitcast=True)
    else:
        return codes.to(DTYPE)


@triton.jit
def float_base(DTYPE: tl.constexpr):
    if tl.bfloat16 == DTYPE:
        return 128.0
    elif tl.float16 == DTYPE:
        return 1024.0
    else:
        return 0.0


@triton.jit
def skinny_kernel(
    x,  # (M, K)
    x_stride,
    w,  # (N, K) if W_T, else (K, N); packed (N, K / 2) in four-bit formats
    w_stride,
    scale,
    zero,
    second,
    code,
    code2,
    offset,
    p,  # (M, RANK)
    q,  # (RANK, N)
    q_row,
    q_column,
    workspace,  # (SPLIT, M, N) float32, if SPLIT > 1
    args,
    M,
    N,
    K,
    GROUPS,
    EPILOGUE: tl.constexpr,
    FORMAT: tl.constexpr,  # dense, wide (8 bits, a scale a row), wide_grouped, int4, lut4
    SCALE: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    W_T: tl.constexpr,
    RANK: tl.constexpr,
    BR: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    SPLIT: tl.constexpr,
    FMA: tl.constexpr,
    EVEN_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    col0 = tl.program_id(0) * BN
    part = tl.program_id(1)
    row0 = tl.program_id(2) * BM
    n = col0 + tl.arange(0, BN)
    m = row0 + tl.arange(0, BM)
    blocks = tl.cdiv(K, BK)
    share = tl.cdiv(blocks, SPLIT)
    is_packed: tl.constexpr = FORMAT == "int4" or FORMAT == "lut4"
    if FMA:
        lanes = tl.zeros((BN, BK), tl.float32)
    else:
        acc = tl.zeros((BM, BN), tl.float32)
    for block in range(part * share, min(blocks, (part + 1) * share)):
        k = block * BK
        columns = k + tl.arange(0, BK)
        if is_packed:
            # Rows beyond the last read the last one's scale; nothing of them is stored.
            row = tl.minimum(n, N - 1)
            group = k // GROUP
            widening = group_scale(scale, second, code2, offset, row, group, GROUPS, SCALE)
            inside = (m < M)[:, None] & (columns < K)[None, :]
            xs = tl.load(x + m[:, None].to(tl.int64) * x_stride + columns[None, :], mask=inside, other=0.0)
            x_even, x_odd = tl.split(tl.reshape(xs, (BM, BK // 2, 2)))
            even, odd = packed_block(w, n, k, N, K, BK)
            if FORMAT == "int4":
                # (code − zero) · scale summed over a group is scale · (Σ code · x − zero · Σ x).
                base = float_base(xs.dtype) + 8.0
                if HAS_ZERO:
                    zeros = tl.load(zero + row.to(tl.int64) * GROUPS + group).to(tl.float32)
                    base = float_base(xs.dtype) + zeros[None, :]
                found = tl.zeros((BM, BN), tl.float32)
                found = tl.dot(x_even, as_floats(even, xs.dtype).T, found, input_precision=PRECISION)
                found = tl.dot(x_odd, as_floats(odd, xs.dtype).T, found, input_precision=PRECISION)
                acc += widening[None, :] * (found - base * tl.sum(xs.to(tl.float32), 1)[:, None])
            else:
                w_even = (tl.load(code + even.to(tl.int32)) * widening[:, None]).to(xs.dtype)
                w_odd = (tl.load(code + odd.to(tl.int32)) * widening[:, None]).to(xs.dtype)
                acc = tl.dot(x_even, w_even.T, acc, input_precision=PRECISION)
                acc = tl.dot(x_odd, w_odd.T, acc, input_precision=PRECISION)
        else:
            if W_T:
                address = w + n[:, None].to(tl.int64) * w_stride + columns[None, :]
                ws = tl.load(address, mask=(n < N)[:, None] & (columns < K)[None, :], other=0.0)
            else:
                address = w + columns[:, None].to(tl.int64) * w_stride + n[None, :]
                ws = tl.trans(tl.load(address, mask=(columns < K)[:, None] & (n < N)[None, :], other=0.0))
            if FORMAT == "wide_grouped":
                group = k // GROUP
                widening = group_scale(scale, second, code2, offset, tl.minimum(n, N - 1), group, GROUPS, SCALE)
                ws = (ws.to(tl.float32) * widening[:, None]).to(x.dtype.element_ty)
            if FMA:
                xs = tl.load(x + columns, mask=columns < K, other=0.0).to(tl.float32)
                lanes += ws.to(tl.float32) * xs[None, :]
            else:
                inside = (m < M)[:, None] & (columns < K)[None, :]
                xs = tl.load(x + m[:, None].to(tl.int64) * x_stride + columns[None, :], mask=inside, other=0.0)
                acc = tl.dot(xs, ws.to(xs.dtype).T, acc, input_precision=PRECISION)
    if FMA:
        acc = tl.sum(lanes, 1)[None, :]
    if FORMAT == "wide":
        acc *= tl.load(scale + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    if SPLIT > 1:
        address = workspace + (part * M + m[:, None]).to(tl.int64) * N + n[None, :]
        tl.store(address, acc, mask=(m < M)[:, None] & (n < N)[None, :])
    else:
        acc = _with_low_rank(acc, p, q, q_row, q_column, m, n, M, N, RANK, BR, FMA, PRECISION)
        EPILOGUE(acc, (), args, row0, col0, M, N, BM, BN, BM == 1, EVEN_N)


@triton.jit
def _with_low_rank(
    acc,
    p,
    q,
    q_row,
    q_column,
    m,
    n,
    M,
    N,
    RANK: tl.constexpr,
    BR: tl.constexpr,
    FMA: tl.constexpr,
    PRECISION: tl.constexpr,
):
    for rank0 in tl.static_range(0, RANK, BR):
        r = rank0 + tl.arange(0, BR)
        address = q + r[:, None].to(tl.int64) * q_row + n[None, :].to(tl.int64) * q_column
        v = tl.load(address, mask=(r < RANK)[:, None] & (n < N)[None, :], other=0.0)
        if FMA:
            u = tl.load(p + r, mask=r < RANK, other=0.0).to(tl.float32)
            acc += tl.sum(u[:, None] * v.to(tl.float32), 0)[None, :]
        else:
            inside = (m < M)[:, None] & (r < RANK)[None, :]
            u = tl.load(p + m[:, None].to(tl.int64) * RANK + r[None, :], mask=inside, other=0.0)
            acc = tl.dot(u, v, acc, input_precision=PRECISION)
    return acc


@triton.jit
def join_kernel(
    workspace,  # (SPLIT, M, N) float32
    p,
    q,
    q_row,
    q_column,
    args,
    M,
    N,
    EPILOGUE: tl.constexpr,
    RANK: tl.constexpr,
    BR: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SPLIT: tl.constexpr,
    EVEN_M: tl.constexpr,
    EVEN_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    col0 = tl.program_id(0) * BN
    row0 = tl.program_id(1) * BM
    n = col0 + tl.arange(0, BN)
    m = row0 + tl.arange(0, BM)
    inside = (m < M)[:, None] & (n < N)[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for part in range(SPLIT):
        address = workspace + (part * M + m[:, None]).to(tl.int64) * N + n[None, :]
        acc += tl.load(address, mask=inside, other=0.0)
    acc = _with_low_rank(acc, p, q, q_row, q_column, m, n, M, N, RANK, BR, BM == 1, PRECISION)
    EPILOGUE(acc, (), args, row0, col0, M, N, BM, BN, EVEN_M, EVEN_N)
