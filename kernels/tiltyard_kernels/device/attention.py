"""Causal attention within the documents of a packed sequence, forward and backward.

Theory of operation. Rows of all documents lie end to end; `starts` (D + 1,) says where each begins. A program owns one
block of BM rows of one document and one head, and runs over that document's keys up to its last row: no mask is built,
and nothing is read of other documents. A table of each tile's first row and its document's bounds is made on the GPU by
`tile_table_kernel`, so lengths that change from batch to batch neither compile nor synchronise anything; the grid is an
upper bound, and programs past the table's end return. Blocks that all rows of a tile see whole run first, without a
comparison; only those on the diagonal compare rows with columns. Tiles with the most keys start first.

Forward: online softmax (Milakov and Gimelshein, arXiv 1805.02867; FlashAttention-2, arXiv 2307.08691), in powers of 2.
Backward: one kernel owns blocks of keys and sums over the query heads of its group and the rows after it, so dk and dv
need no atomics; a second owns blocks of queries and makes dq. So every result is the same in every run.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["DOCUMENTS"])
def tile_table_kernel(starts, table, DOCUMENTS, BM: tl.constexpr):
    """table[i] = (first row, document's first row, document's end), or −1 beyond the last; one program a tile."""
    tile = tl.program_id(0)
    before = 0
    found = -1
    first = 0
    begin = 0
    end = 0
    for document in range(DOCUMENTS):
        low = tl.load(starts + document).to(tl.int32)
        high = tl.load(starts + document + 1).to(tl.int32)
        tiles = (high - low + BM - 1) // BM
        is_here = (tile >= before) & (tile < before + tiles)
        found = tl.where(is_here, document, found)
        first = tl.where(is_here, low + (tile - before) * BM, first)
        begin = tl.where(is_here, low, begin)
        end = tl.where(is_here, high, end)
        before += tiles
    tl.store(table + tile * 3, tl.where(found >= 0, first, -1))
    tl.store(table + tile * 3 + 1, begin)
    tl.store(table + tile * 3 + 2, end)


@triton.jit
def _rows(x, rows, head, end, stride, head_stride, SIZE: tl.constexpr, BLOCK: tl.constexpr, INSIDE: tl.constexpr):
    """(rows, BLOCK) of one head; zero beyond the document's end and the head's size. INSIDE: all rows are before it."""
    lane = tl.arange(0, BLOCK)
    address = x + rows[:, None].to(tl.int64) * stride + head * head_stride + lane[None, :]
    if INSIDE and SIZE == BLOCK:
        return tl.load(address)
    elif SIZE == BLOCK:
        return tl.load(address, mask=(rows < end)[:, None], other=0.0)
    else:
        return tl.load(address, mask=(rows < end)[:, None] & (lane < SIZE)[None, :], other=0.0)


@triton.jit
def _store_rows(x, value, rows, head, end, stride, head_stride, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    address = x + rows[:, None].to(tl.int64) * stride + head * head_stride + lane[None, :]
    tl.store(address, value.to(x.dtype.element_ty), mask=(rows < end)[:, None] & (lane < SIZE)[None, :])


@triton.jit
def _attend(
    acc, total, largest, queries, k, v, low, high, rows, key_head, end, k_stride, v_stride, scale,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, DIAGONAL: tl.constexpr,
):  # fmt: skip
    """Online softmax over the keys from `low` to `high`. Without DIAGONAL every row sees all of them."""
    for start in range(low, high, BN):
        columns = start + tl.arange(0, BN)
        keys = _rows(k, columns, key_head, end, k_stride, SIZE, SIZE, BLOCK, not DIAGONAL)
        scores = tl.dot(queries, keys.T, input_precision=PRECISION)
        if DIAGONAL:
            scores = tl.where(columns[None, :] <= rows[:, None], scores, float("-inf"))
        new = tl.maximum(largest, tl.max(scores, 1) * scale)
        p = tl.exp2(scores * scale - new[:, None])
        kept = tl.exp2(largest - new)
        total = total * kept + tl.sum(p, 1)
        values = _rows(v, columns, key_head, end, v_stride, SIZE, SIZE, BLOCK, not DIAGONAL)
        acc = tl.dot(p.to(values.dtype), values, acc * kept[:, None], input_precision=PRECISION)
        largest = new
    return acc, total, largest


@triton.jit(do_not_specialize=["T"])
def attention_forward_kernel(
    q,  # (T, H, SIZE)
    k,  # (T, H / GROUP, SIZE)
    v,
    o,  # (T, H, SIZE), contiguous
    lse,  # (H, T) float32, base 2
    table,
    q_stride,
    k_stride,
    v_stride,
    T,
    HEADS,
    scale,  # of the scores, times log2 e; above 0
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1)
    first = tl.load(table + tile * 3)
    if first < 0:
        return
    begin = tl.load(table + tile * 3 + 1)
    end = tl.load(table + tile * 3 + 2)
    rows = first + tl.arange(0, BM)
    queries = _rows(q, rows, head, end, q_stride, SIZE, SIZE, BLOCK, False)
    largest = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, BLOCK), tl.float32)
    seen = begin + (first + 1 - begin) // BN * BN
    acc, total, largest = _attend(
        acc, total, largest, queries, k, v, begin, seen, rows, head // GROUP, end, k_stride, v_stride, scale,
        SIZE, BLOCK, BN, PRECISION, False,
    )  # fmt: skip
    acc, total, largest = _attend(
        acc, total, largest, queries, k, v, seen, tl.minimum(first + BM, end), rows, head // GROUP, end, k_stride,
        v_stride, scale, SIZE, BLOCK, BN, PRECISION, True,
    )  # fmt: skip
    _store_rows(o, acc / total[:, None], rows, head, end, HEADS * SIZE, SIZE, SIZE, BLOCK)
    tl.store(lse + head * T + rows, largest + tl.log2(total), mask=rows < end)


@triton.jit(do_not_specialize=["T"])
def attention_delta_kernel(o, do, delta, T, HEADS, SIZE: tl.constexpr, BLOCK: tl.constexpr, BM: tl.constexpr):
    """delta (H, T) = Σ o · do of each row and head."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    head = tl.program_id(1)
    left = _rows(o, rows, head, T, HEADS * SIZE, SIZE, SIZE, BLOCK, False).to(tl.float32)
    right = _rows(do, rows, head, T, HEADS * SIZE, SIZE, SIZE, BLOCK, False).to(tl.float32)
    tl.store(delta + head * T + rows, tl.sum(left * right, 1), mask=rows < T)


@triton.jit
def _key_gradients(
    dkeys, dvalues, keys, values, q, do, lse, delta, low, high, columns, head, end, T, q_stride, do_stride, scale,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, BM: tl.constexpr, PRECISION: tl.constexpr, DIAGONAL: tl.constexpr,
):  # fmt: skip
    """What the rows from `low` to `high` of one head add to the gradients of these keys."""
    for start in range(low, high, BM):
        rows = start + tl.arange(0, BM)
        queries = _rows(q, rows, head, end, q_stride, SIZE, SIZE, BLOCK, False)
        douts = _rows(do, rows, head, end, do_stride, SIZE, SIZE, BLOCK, False)
        # Rows beyond the end have weights of 2 to the power of −inf.
        norms = tl.load(lse + head * T + rows, mask=rows < end, other=float("inf"))
        deltas = tl.load(delta + head * T + rows, mask=rows < end, other=0.0)
        scores = tl.dot(keys, queries.T, input_precision=PRECISION)  # (BN, BM)
        p = tl.exp2(scores * scale - norms[None, :])
        if DIAGONAL:
            p = tl.where(columns[:, None] <= rows[None, :], p, 0.0)
        dvalues = tl.dot(p.to(douts.dtype), douts, dvalues, input_precision=PRECISION)
        dp = tl.dot(values, douts.T, input_precision=PRECISION)
        ds = p * (dp - deltas[None, :])
        dkeys = tl.dot(ds.to(queries.dtype), queries, dkeys, input_precision=PRECISION)
    return dkeys, dvalues


@triton.jit(do_not_specialize=["T"])
def attention_key_gradient_kernel(
    q, k, v, do, lse, delta, dk, dv, table, q_stride, k_stride, v_stride, T, HEADS, scale, raw_scale,
    GROUP: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv of BN keys of one key head: over the query heads of its group, and the rows from there on."""
    tile = tl.program_id(0)
    key_head = tl.program_id(1)
    first = tl.load(table + tile * 3)
    if first < 0:
        return
    end = tl.load(table + tile * 3 + 2)
    columns = first + tl.arange(0, BN)
    keys = _rows(k, columns, key_head, end, k_stride, SIZE, SIZE, BLOCK, False)
    values = _rows(v, columns, key_head, end, v_stride, SIZE, SIZE, BLOCK, False)
    dkeys = tl.zeros((BN, BLOCK), tl.float32)
    dvalues = tl.zeros((BN, BLOCK), tl.float32)
    below = first + (BN + BM - 1) // BM * BM
    for member in range(GROUP):
        head = key_head * GROUP + member
        dkeys, dvalues = _key_gradients(
            dkeys, dvalues, keys, values, q, do, lse, delta, first, tl.minimum(below, end), columns, head, end, T,
            q_stride, HEADS * SIZE, scale, SIZE, BLOCK, BM, PRECISION, True,
        )  # fmt: skip
        dkeys, dvalues = _key_gradients(
            dkeys, dvalues, keys, values, q, do, lse, delta, below, end, columns, head, end, T,
            q_stride, HEADS * SIZE, scale, SIZE, BLOCK, BM, PRECISION, False,
        )  # fmt: skip
    key_heads = HEADS // GROUP
    _store_rows(dk, dkeys * raw_scale, columns, key_head, end, key_heads * SIZE, SIZE, SIZE, BLOCK)
    _store_rows(dv, dvalues, columns, key_head, end, key_heads * SIZE, SIZE, SIZE, BLOCK)


@triton.jit
def _query_gradient(
    dqueries, queries, douts, norms, deltas, k, v, low, high, rows, key_head, end, k_stride, v_stride, scale,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, DIAGONAL: tl.constexpr,
):  # fmt: skip
    """What the keys from `low` to `high` add to the gradient of these rows."""
    for start in range(low, high, BN):
        columns = start + tl.arange(0, BN)
        keys = _rows(k, columns, key_head, end, k_stride, SIZE, SIZE, BLOCK, not DIAGONAL)
        values = _rows(v, columns, key_head, end, v_stride, SIZE, SIZE, BLOCK, not DIAGONAL)
        scores = tl.dot(queries, keys.T, input_precision=PRECISION)
        p = tl.exp2(scores * scale - norms[:, None])
        if DIAGONAL:
            p = tl.where(columns[None, :] <= rows[:, None], p, 0.0)
        dp = tl.dot(douts, values.T, input_precision=PRECISION)
        ds = p * (dp - deltas[:, None])
        dqueries = tl.dot(ds.to(keys.dtype), keys, dqueries, input_precision=PRECISION)
    return dqueries


@triton.jit(do_not_specialize=["T"])
def attention_query_gradient_kernel(
    q, k, v, do, lse, delta, dq, table, q_stride, k_stride, v_stride, T, HEADS, scale, raw_scale,
    GROUP: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dq of BM rows of one head: over its document's keys up to there."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1)
    first = tl.load(table + tile * 3)
    if first < 0:
        return
    begin = tl.load(table + tile * 3 + 1)
    end = tl.load(table + tile * 3 + 2)
    rows = first + tl.arange(0, BM)
    queries = _rows(q, rows, head, end, q_stride, SIZE, SIZE, BLOCK, False)
    douts = _rows(do, rows, head, end, HEADS * SIZE, SIZE, SIZE, BLOCK, False)
    norms = tl.load(lse + head * T + rows, mask=rows < end, other=float("inf"))
    deltas = tl.load(delta + head * T + rows, mask=rows < end, other=0.0)
    dqueries = tl.zeros((BM, BLOCK), tl.float32)
    seen = begin + (first + 1 - begin) // BN * BN
    dqueries = _query_gradient(
        dqueries, queries, douts, norms, deltas, k, v, begin, seen, rows, head // GROUP, end, k_stride, v_stride,
        scale, SIZE, BLOCK, BN, PRECISION, False,
    )  # fmt: skip
    dqueries = _query_gradient(
        dqueries, queries, douts, norms, deltas, k, v, seen, tl.minimum(first + BM, end), rows, head // GROUP, end,
        k_stride, v_stride, scale, SIZE, BLOCK, BN, PRECISION, True,
    )  # fmt: skip
    _store_rows(dq, dqueries * raw_scale, rows, head, end, HEADS * SIZE, SIZE, SIZE, BLOCK)
