"""The one GEMM mainloop: C = A · B (+ P · Q), tile by tile, each tile handed to an epilogue.

Theory of operation. As many programs as there are multiprocessors walk over the output's tiles in a grouped order, so
that the tiles which run together share rows of A and columns of B in L2 (after Triton's tutorials 03 and 09). For a
tile, blocks of A and B arrive through TMA descriptors (or through masked pointers, before Hopper and for rows that are
not aligned to 16 bytes) into a software pipeline of `num_stages`, and `tl.dot` accumulates in float32. The optional
low-rank product P · Q, of an adapter, joins the same accumulator after the last block of K. Where P and Q lie as A and
B do (JOINED), its blocks are further blocks of the same loop, which reads them through P's and Q's descriptors: so they
come through the pipeline too, and cost what more columns of K would. Else they are read one after the other after the
loop. Then the accumulator is cut into SUB pieces along its columns, so that an epilogue's own tiles and the staging of
its stores need a SUB-th of the registers and of the shared memory, and the epilogue runs on each.

Quantised operands have a scale for each row of A and each column of B, by which each piece is multiplied before its
epilogue (SCALED), so that a program sees the product of what they stand for. An adapter's product is not to be scaled:
P is divided by the rows' scales as it is read, and Q comes divided by the columns'. Scaling the whole accumulator
before the adapter joins would take no division, but the compiler then moved all of it through local memory.

Where tiles are too few for the multiprocessors, K is cut into SPLIT parts: a program works on one part of one tile and
leaves its accumulator in a workspace, and `skinny.join_kernel` does the rest.

With `flatten` the compiler makes one loop of tiles and blocks, and the next tile's loads start under this tile's
epilogue.
"""

import triton
import triton.language as tl


@triton.jit
def _block(
    x, row0, col0, rows, cols, BR: tl.constexpr, BC: tl.constexpr, DESCRIBED: tl.constexpr, EVEN_COLS: tl.constexpr
):
    """A (BR, BC) block of a row-major matrix; what lies outside it reads as zero."""
    if DESCRIBED:
        return x.load([row0, col0])
    else:  # the compiler must see one branch only
        r = row0 + tl.arange(0, BR)
        c = col0 + tl.arange(0, BC)
        address = x[0] + r[:, None].to(tl.int64) * x[1] + c[None, :]
        inside = (r < rows)[:, None]
        if not EVEN_COLS:
            inside = inside & (c < cols)[None, :]
        return tl.load(address, mask=inside, other=0.0)


@triton.jit
def _halves(acc, BM: tl.constexpr, BN: tl.constexpr):
    """The left and the right half of a tile. In registers a wgmma accumulator's halves are apart already."""
    return tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))


@triton.jit
def _scaled(piece, row_scale, column_scale, row0, col0, M, N, BM: tl.constexpr, BN: tl.constexpr, SCALED: tl.constexpr):
    """A piece of the accumulator times its rows' scales, and if SCALED > 1 its columns'."""
    if SCALED:
        rows = row0 + tl.arange(0, BM)
        piece *= tl.load(row_scale + rows, mask=rows < M, other=0.0)[:, None]
    if SCALED > 1:
        columns = col0 + tl.arange(0, BN)
        piece *= tl.load(column_scale + columns, mask=columns < N, other=0.0)[None, :]
    return piece


@triton.jit
def gemm_kernel(
    a,  # (M, K), or (K, M) if A_T
    b,  # (K, N), or (N, K) if B_T
    p,  # (M, RANK)
    q,  # (RANK, N), or (N, RANK) if Q_T
    t0,
    t1,
    t2,
    t3,
    t4,
    t5,
    workspace,  # (SPLIT, M, N) float32, if SPLIT > 1
    args,
    row_scale,  # (M,) float32, if SCALED
    column_scale,  # (N,) float32, if SCALED > 1
    M,
    N,
    K,
    EPILOGUE: tl.constexpr,
    A_T: tl.constexpr,
    B_T: tl.constexpr,
    Q_T: tl.constexpr,
    A_DESCRIBED: tl.constexpr,
    B_DESCRIBED: tl.constexpr,
    P_DESCRIBED: tl.constexpr,
    Q_DESCRIBED: tl.constexpr,
    RANK: tl.constexpr,
    BR: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
    SUB: tl.constexpr,
    PROGRAMS: tl.constexpr,
    EVEN_M: tl.constexpr,
    EVEN_N: tl.constexpr,
    EVEN_K: tl.constexpr,
    HAS_K: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    FLATTEN: tl.constexpr,
    SPLIT: tl.constexpr,
    JOINED: tl.constexpr,
    SCALED: tl.constexpr,
):
    tiles = (t0, t1, t2, t3, t4, t5)
    tiles_m = tl.cdiv(M, BM)
    tiles_n = tl.cdiv(N, BN)
    blocks_k = tl.cdiv(K, BK)
    if HAS_K:
        # Else the compiler makes a second loop for no blocks of K, with an adapter's in buffers of its own.
        tl.assume(K > 0)
        tl.assume(blocks_k > 0)
    group_tiles = GROUP * tiles_n
    for item in tl.range(tl.program_id(0), tiles_m * tiles_n * SPLIT, PROGRAMS, flatten=FLATTEN):
        if SPLIT == 1:
            tile = item
            first_k = 0
            last_k = blocks_k
        else:
            tile = item // SPLIT
            share = tl.cdiv(blocks_k, SPLIT)
            first_k = (item % SPLIT) * share
            last_k = min(first_k + share, blocks_k)
        first_m = (tile // group_tiles) * GROUP
        group_rows = min(tiles_m - first_m, GROUP)
        row0 = (first_m + (tile % group_tiles) % group_rows) * BM
        col0 = ((tile % group_tiles) // group_rows) * BN
        acc = tl.zeros((BM, BN), ACC)
        for k in range(first_k, last_k + (tl.cdiv(RANK, BK) if JOINED else 0)):
            xs, ys, k0 = a, b, k * BK
            if JOINED:  # noqa: SIM102  # the compiler must not see what is no descriptor
                if k >= last_k:
                    xs, ys, k0 = p, q, (k - last_k) * BK
            if A_T:
                x = _block(xs, k0, row0, K, M, BK, BM, A_DESCRIBED, EVEN_M).T
            else:
                x = _block(xs, row0, k0, M, K, BM, BK, A_DESCRIBED, EVEN_K)
            if B_T:
                y = _block(ys, col0, k0, N, K, BN, BK, B_DESCRIBED, EVEN_K).T
            else:
                y = _block(ys, k0, col0, K, N, BK, BN, B_DESCRIBED, EVEN_N)
            acc = tl.dot(x, y, acc, input_precision=PRECISION, out_dtype=ACC)
        for rank0 in tl.static_range(0, RANK if SPLIT == 1 and not JOINED else 0, BR):
            u = _block(p, row0, rank0, M, RANK, BM, BR, P_DESCRIBED, RANK % BR == 0)
            if SCALED:
                rows = row0 + tl.arange(0, BM)
                u = (u / tl.load(row_scale + rows, mask=rows < M, other=1.0)[:, None]).to(u.dtype)
            if Q_T:
                v = _block(q, col0, rank0, N, RANK, BN, BR, Q_DESCRIBED, RANK % BR == 0).T
            else:
                v = _block(q, rank0, col0, RANK, N, BR, BN, Q_DESCRIBED, EVEN_N)
            acc = tl.dot(u, v, acc, input_precision=PRECISION, out_dtype=ACC)
        if SPLIT > 1:
            rows = row0 + tl.arange(0, BM)
            columns = col0 + tl.arange(0, BN)
            line = rows[:, None].to(tl.int64) + (item % SPLIT) * M
            address = workspace + line * N + columns[None, :]
            tl.store(address, acc, mask=(rows < M)[:, None] & (columns < N)[None, :])
        elif SUB == 1:
            acc = _scaled(acc, row_scale, column_scale, row0, col0, M, N, BM, BN, SCALED)
            EPILOGUE(acc, tiles, args, row0, col0, M, N, BM, BN, EVEN_M, EVEN_N)
        elif SUB == 2:
            left, right = _halves(acc, BM, BN)
            left = _scaled(left, row_scale, column_scale, row0, col0, M, N, BM, BN // 2, SCALED)
            EPILOGUE(left, tiles, args, row0, col0, M, N, BM, BN // 2, EVEN_M, EVEN_N)
            right = _scaled(right, row_scale, column_scale, row0, col0 + BN // 2, M, N, BM, BN // 2, SCALED)
            EPILOGUE(right, tiles, args, row0, col0 + BN // 2, M, N, BM, BN // 2, EVEN_M, EVEN_N)
        else:
            QUARTER: tl.constexpr = BN // 4
            left, right = _halves(acc, BM, BN)
            first, second = _halves(left, BM, BN // 2)
            first = _scaled(first, row_scale, column_scale, row0, col0, M, N, BM, QUARTER, SCALED)
            EPILOGUE(first, tiles, args, row0, col0, M, N, BM, QUARTER, EVEN_M, EVEN_N)
            second = _scaled(second, row_scale, column_scale, row0, col0 + QUARTER, M, N, BM, QUARTER, SCALED)
            EPILOGUE(second, tiles, args, row0, col0 + QUARTER, M, N, BM, QUARTER, EVEN_M, EVEN_N)
            third, fourth = _halves(right, BM, BN // 2)
            third = _scaled(third, row_scale, column_scale, row0, col0 + 2 * QUARTER, M, N, BM, QUARTER, SCALED)
            EPILOGUE(third, tiles, args, row0, col0 + 2 * QUARTER, M, N, BM, QUARTER, EVEN_M, EVEN_N)
            fourth = _scaled(fourth, row_scale, column_scale, row0, col0 + 3 * QUARTER, M, N, BM, QUARTER, SCALED)
            EPILOGUE(fourth, tiles, args, row0, col0 + 3 * QUARTER, M, N, BM, QUARTER, EVEN_M, EVEN_N)
