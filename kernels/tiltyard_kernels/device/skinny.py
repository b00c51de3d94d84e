"""Products with few rows, bound by reading the weight: x (M, K) · w, w dense or quantised, K cut into parts.

Theory of operation. A program owns BN columns of the result, one part of K and BM rows of x; it reads its share of the
weight once, in blocks of BK. The grid has enough programs to keep memory busy; where columns alone are too few, K is
cut into SPLIT parts, each of which leaves float32 sums in a workspace, and `join_kernel` adds the parts in order, joins
the adapter's P · Q and runs the epilogue. So results are the same in every run, without atomics. The mainloop uses the
same join where its tiles are too few.

With one row of a dense or 8-bit weight (FMA) there is no matrix product: each thread multiplies what it has read and
sums at the end. Otherwise rows are padded to 16 for the tensor cores, which wait for memory anyway.

A quantised weight is widened in registers, block by block, and is the left operand of the matrix product, which takes
that one from registers. Of int4 the even and the odd columns come from one byte; they are multiplied with the even and
the odd columns of x, so that nothing has to be interleaved. Weights of looked-up codes (NF4) are not read here.
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
def packed_bytes(w, n, k, N, K, pitch, BK: tl.constexpr, EVEN: tl.constexpr):
    """The bytes (BN, BK / 2) of a block of a four-bit weight, rows `pitch` bytes apart; 0 outside it."""
    byte = k // 2 + tl.arange(0, BK // 2)
    address = w + n[:, None].to(tl.int64) * pitch + byte[None, :]
    if EVEN:  # without a mask, sixteen bytes at a time
        return tl.load(address)
    else:
        return tl.load(address, mask=(n < N)[:, None] & (byte < K // 2)[None, :], other=0)


@triton.jit
def int4_values(packed, DTYPE: tl.constexpr, ASSEMBLY: tl.constexpr):
    """code − 8 of the even and the odd columns, exactly.

    In assembly for four bytes at a time: a code, put under the high byte of 128 (bfloat16) or 1024 (float16), is that
    number plus the code, and the offset comes off two at a time. A conversion of each would cost several times that.
    """
    if ASSEMBLY and tl.bfloat16 == DTYPE:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 low, high, top, one, less;
            mov.b32 top, 0x43434343;
            mov.b32 one, 0x3f803f80;
            mov.b32 less, 0xc308c308;
            and.b32 low, $4, 0x0f0f0f0f;
            shr.u32 high, $4, 4;
            and.b32 high, high, 0x0f0f0f0f;
            prmt.b32 $0, low, top, 0x4140;
            prmt.b32 $1, low, top, 0x4342;
            prmt.b32 $2, high, top, 0x4140;
            prmt.b32 $3, high, top, 0x4342;
            fma.rn.bf16x2 $0, $0, one, less;
            fma.rn.bf16x2 $1, $1, one, less;
            fma.rn.bf16x2 $2, $2, one, less;
            fma.rn.bf16x2 $3, $3, one, less;
            }""",
            "=&r,=&r,=&r,=&r,r",
            [packed],
            dtype=(tl.bfloat16, tl.bfloat16),
            is_pure=True,
            pack=4,
        )
    elif ASSEMBLY and tl.float16 == DTYPE:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 low, high, top, less;
            mov.b32 top, 0x64646464;
            mov.b32 less, 0x64086408;
            and.b32 low, $4, 0x0f0f0f0f;
            shr.u32 high, $4, 4;
            and.b32 high, high, 0x0f0f0f0f;
            prmt.b32 $0, low, top, 0x4140;
            prmt.b32 $1, low, top, 0x4342;
            prmt.b32 $2, high, top, 0x4140;
            prmt.b32 $3, high, top, 0x4342;
            sub.rn.f16x2 $0, $0, less;
            sub.rn.f16x2 $1, $1, less;
            sub.rn.f16x2 $2, $2, less;
            sub.rn.f16x2 $3, $3, less;
            }""",
            "=&r,=&r,=&r,=&r,r",
            [packed],
            dtype=(tl.float16, tl.float16),
            is_pure=True,
            pack=4,
        )
    else:
        codes = packed.to(tl.int16)
        return ((codes & 15) - 8).to(DTYPE), ((codes >> 4) - 8).to(DTYPE)


@triton.jit
def _even_and_odd(x, x_stride, m, k, M, K, BK: tl.constexpr):
    """The even and the odd columns of a block of x, each (BK / 2, BM); 0 outside it."""
    even = k + tl.arange(0, BK // 2) * 2
    address = x + even[:, None] + m[None, :].to(tl.int64) * x_stride
    inside = (even < K)[:, None] & (m < M)[None, :]
    return tl.load(address, mask=inside, other=0.0), tl.load(address + 1, mask=inside, other=0.0)


@triton.jit
def _pairs(x, x_stride, m, k, M, K, BK: tl.constexpr, EVEN_K: tl.constexpr):
    """The same, read as words of two columns: these the pipeline fetches ahead, and the product takes them from shared
    memory as they lie, while single 16-bit numbers would go through registers and two barriers."""
    words = x.to(tl.pointer_type(tl.int32), bitcast=True)
    pair = k // 2 + tl.arange(0, BK // 2)
    address = words + pair[:, None] + (m * (x_stride // 2))[None, :]
    if EVEN_K:
        both = tl.load(address, mask=(m < M)[None, :], other=0)
    else:
        both = tl.load(address, mask=(pair < K // 2)[:, None] & (m < M)[None, :], other=0)
    even = (both & 0xFFFF).to(tl.int16).to(x.dtype.element_ty, bitcast=True)
    odd = (both >> 16).to(tl.int16).to(x.dtype.element_ty, bitcast=True)
    return even, odd


@triton.jit
def skinny_kernel(
    x,  # (M, K)
    x_stride,
    w,  # (N, K) if W_T, else (K, N); packed (N, K / 2) in int4
    w_stride,
    scale,
    zero,
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
    FORMAT: tl.constexpr,  # dense, wide (8 bits, a scale a row), wide_grouped, int4
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
    EVEN_K: tl.constexpr,
    PRECISION: tl.constexpr,
    ASSEMBLY: tl.constexpr,  # whether a real GPU runs this, which has its own instructions
    PAIRED: tl.constexpr,  # whether two columns of x can be read as one word
):
    col0 = tl.program_id(0) * BN
    part = tl.program_id(1)
    row0 = tl.program_id(2) * BM
    n = col0 + tl.arange(0, BN)
    m = row0 + tl.arange(0, BM)
    blocks = tl.cdiv(K, BK)
    share = tl.cdiv(blocks, SPLIT)
    is_packed: tl.constexpr = FORMAT == "int4"
    is_grouped: tl.constexpr = is_packed or FORMAT == "wide_grouped"
    first = part * share
    last = min(blocks, first + share)
    # Columns of w are rows of the matrix unit's product, so that a widened weight goes to it from registers.
    row = tl.minimum(n, N - 1)  # those beyond the last read the last one's scale; nothing of them is stored
    if FMA:
        lanes = tl.zeros((BN, BK), tl.float32)
    else:
        found = tl.zeros((BN, BM), tl.float32)
    # Scales, and single columns of x, are asked for a block ahead by hand: the pipeline of loads leaves them out.
    if is_grouped:
        widening = group_scale(scale, scale, scale, 0.0, row, tl.minimum(first * BK, K - 1) // GROUP, GROUPS, SCALE)
    if is_packed and not PAIRED:
        x_even, x_odd = _even_and_odd(x, x_stride, m, first * BK, M, K, BK)
    for block in range(first, last):
        k = block * BK
        columns = k + tl.arange(0, BK)
        if is_grouped:
            coming = tl.minimum(k + BK, K - 1) // GROUP
            next_widening = group_scale(scale, scale, scale, 0.0, row, coming, GROUPS, SCALE)
        if is_packed:
            if PAIRED:
                x_even, x_odd = _pairs(x, x_stride, m, k, M, K, BK, EVEN_K)
            else:
                next_even, next_odd = _even_and_odd(x, x_stride, m, k + BK, M, K, BK)
            packed = packed_bytes(w, n, k, N, K, w_stride, BK, EVEN_N and EVEN_K)
            # (code − zero) · scale summed over a group is scale · (Σ (code − 8) · x − (zero − 8) · Σ x).
            w_even, w_odd = int4_values(packed, x_even.dtype, ASSEMBLY)
            part_sum = tl.dot(w_even, x_even, input_precision=PRECISION)
            part_sum = tl.dot(w_odd, x_odd, part_sum, input_precision=PRECISION)
            if HAS_ZERO:
                zeros = tl.load(zero + row.to(tl.int64) * GROUPS + k // GROUP).to(tl.float32) - 8.0
                total = tl.sum(x_even.to(tl.float32), 0) + tl.sum(x_odd.to(tl.float32), 0)
                part_sum -= zeros[:, None] * total[None, :]
            found += widening[:, None] * part_sum
        else:
            if W_T:
                address = w + n[:, None].to(tl.int64) * w_stride + columns[None, :]
                ws = tl.load(address, mask=(n < N)[:, None] & (columns < K)[None, :], other=0.0)
            else:
                address = w + columns[:, None].to(tl.int64) * w_stride + n[None, :]
                ws = tl.trans(tl.load(address, mask=(columns < K)[:, None] & (n < N)[None, :], other=0.0))
            if FORMAT == "wide_grouped":
                ws = (ws.to(tl.float32) * widening[:, None]).to(x.dtype.element_ty)
            if FMA:
                xs = tl.load(x + columns, mask=columns < K, other=0.0).to(tl.float32)
                lanes += ws.to(tl.float32) * xs[None, :]
            else:
                inside = (columns < K)[:, None] & (m < M)[None, :]
                xs = tl.load(x + columns[:, None] + m[None, :].to(tl.int64) * x_stride, mask=inside, other=0.0)
                found = tl.dot(ws.to(xs.dtype), xs, found, input_precision=PRECISION)
        if is_grouped:
            widening = next_widening
        if is_packed and not PAIRED:
            x_even = next_even
            x_odd = next_odd
    if FORMAT == "wide":
        widening = tl.load(scale + n, mask=n < N, other=0.0).to(tl.float32)
    if FMA:
        summed = tl.sum(lanes, 1)
        if FORMAT == "wide":
            summed *= widening
        acc = summed[None, :]
        if SPLIT == 1:
            acc = _with_low_rank(acc, p, q, q_row, q_column, m, n, M, N, RANK, BR, True, PRECISION)
    else:
        if FORMAT == "wide":
            found *= widening[:, None]
        if SPLIT == 1:
            for rank0 in tl.static_range(0, RANK, BR):
                r = rank0 + tl.arange(0, BR)
                address = q + r[None, :].to(tl.int64) * q_row + n[:, None].to(tl.int64) * q_column
                v = tl.load(address, mask=(n < N)[:, None] & (r < RANK)[None, :], other=0.0)
                inside = (r < RANK)[:, None] & (m < M)[None, :]
                u = tl.load(p + m[None, :].to(tl.int64) * RANK + r[:, None], mask=inside, other=0.0)
                found = tl.dot(v, u, found, input_precision=PRECISION)
        acc = tl.trans(found)
    if SPLIT > 1:
        address = workspace + (part * M + m[:, None]).to(tl.int64) * N + n[None, :]
        tl.store(address, acc, mask=(m < M)[:, None] & (n < N)[None, :])
    else:
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
