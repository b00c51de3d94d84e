"""One row times an int4 weight, without the tensor cores and without cutting K: y = x · wᵀ, bound by reading w.

Theory of operation. A program owns BN rows of w and walks over K in chunks of BK. A thread reads four words of a row,
32 codes, and keeps what x has at these columns in registers for all BN rows. A code becomes a float32 by one logical
instruction: put over the low bits of a power of two's mantissa, at bits 12 to 15 of 2048 or at bits 16 to 19 of 128, it
is that power plus the code; the power, and the 8 or the zero that is subtracted from codes, come off as a multiple of
Σ x, once for each row and thread. A group's scale is applied to a thread's sum, since a thread's 32 codes lie in one
group; threads' sums are added once, after the last chunk. So nothing in the loop waits for another thread but x, which
is read once for BN rows.
"""

import triton
import triton.language as tl

from tiltyard_kernels.device.skinny import _with_low_rank


@triton.jit
def _two_codes(w, LEFT: tl.constexpr, SHIFT: tl.constexpr, ASSEMBLY: tl.constexpr):
    """2048 + the code which the shift brings to bits 12 to 15, and 128 + the one above it, as float32.

    In assembly, since the compiler makes two instructions of the two logical operations.
    """
    placed = w << SHIFT if LEFT else w >> SHIFT
    if ASSEMBLY:
        low, high = tl.inline_asm_elementwise(
            """{
            lop3.b32 $0, $2, 0x0000f000, 0x45000000, 0xea;
            lop3.b32 $1, $2, 0x000f0000, 0x43000000, 0xea;
            }""",
            "=r,=r,r",
            [placed],
            dtype=(tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )
    else:
        low = ((placed & 0x0000F000) | 0x45000000).to(tl.float32, bitcast=True)
        high = ((placed & 0x000F0000) | 0x43000000).to(tl.float32, bitcast=True)
    return low, high


@triton.jit
def _two_columns(both, DTYPE: tl.constexpr):
    """The two 16-bit numbers of a word, as float32."""
    even = (both & 0xFFFF).to(tl.int16).to(DTYPE, bitcast=True)
    odd = (both >> 16).to(tl.int16).to(DTYPE, bitcast=True)
    return even.to(tl.float32), odd.to(tl.float32)


@triton.jit
def single_row_kernel(
    x,  # (1, K), read as words of two columns
    w,  # (N, K / 2) bytes, read as words of eight columns
    pitch,  # words from row to row
    scale,  # (N, K / GROUP)
    zero,  # alike, if HAS_ZERO
    p,  # (1, RANK)
    q,  # (RANK, N)
    q_row,
    q_column,
    args,
    N,
    K,
    GROUPS,
    EPILOGUE: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    RANK: tl.constexpr,
    BR: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    EVEN_N: tl.constexpr,
    EVEN_K: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    WORDS: tl.constexpr = BK // 8
    col0 = tl.program_id(0) * BN
    n = col0 + tl.arange(0, BN)
    row = n if EVEN_N else tl.minimum(n, N - 1)
    words = w.to(tl.pointer_type(tl.int32), bitcast=True) + row[:, None].to(tl.int64) * pitch
    pairs = x.to(tl.pointer_type(tl.int32), bitcast=True)
    lanes = tl.zeros((BN, BK // 32), tl.float32)
    for k in range(0, K, BK):
        word = k // 8 + tl.arange(0, WORDS)
        quad = k // 32 + tl.arange(0, BK // 32)
        pair = k // 2 + tl.arange(0, WORDS)[:, None] * 4 + tl.arange(0, 4)[None, :]
        if EVEN_K:
            packed = tl.load(words + word[None, :])
            both = tl.load(pairs + pair)
        else:
            packed = tl.load(words + word[None, :], mask=(word < K // 8)[None, :], other=0)
            both = tl.load(pairs + pair, mask=pair < K // 2, other=0)
        group = quad * 32 // GROUP
        if not EVEN_K:
            group = tl.minimum(group, GROUPS - 1)
        widening = tl.load(scale + row[:, None].to(tl.int64) * GROUPS + group[None, :]).to(tl.float32)
        outer, inner = tl.split(tl.reshape(both, (WORDS, 2, 2)))  # pairs 0 and 2, 1 and 3
        first, third = tl.split(outer)
        second, fourth = tl.split(inner)
        x0, x1 = _two_columns(first, x.dtype.element_ty)
        x2, x3 = _two_columns(second, x.dtype.element_ty)
        x4, x5 = _two_columns(third, x.dtype.element_ty)
        x6, x7 = _two_columns(fourth, x.dtype.element_ty)
        low = x0 + x2 + x4 + x6
        high = x1 + x3 + x5 + x7
        c0, c1 = _two_codes(packed, True, 12, ASSEMBLY)
        c2, c3 = _two_codes(packed, True, 4, ASSEMBLY)
        c4, c5 = _two_codes(packed, False, 4, ASSEMBLY)
        c6, c7 = _two_codes(packed, False, 12, ASSEMBLY)
        total = c0 * x0[None, :] - (2056.0 * low + 136.0 * high)[None, :]
        total += c1 * x1[None, :]
        total += c2 * x2[None, :]
        total += c3 * x3[None, :]
        total += c4 * x4[None, :]
        total += c5 * x5[None, :]
        total += c6 * x6[None, :]
        total += c7 * x7[None, :]
        found = tl.sum(tl.reshape(total, (BN, BK // 32, 4)), 2)
        if HAS_ZERO:
            zeros = tl.load(zero + row[:, None].to(tl.int64) * GROUPS + group[None, :]).to(tl.float32) - 8.0
            found -= zeros * tl.sum(tl.reshape(low + high, (BK // 32, 4)), 1)[None, :]
        lanes += widening * found
    acc = tl.sum(lanes, 1)[None, :]
    m = tl.zeros((1,), tl.int32)
    acc = _with_low_rank(acc, p, q, q_row, q_column, m, n, 1, N, RANK, BR, True, None)
    EPILOGUE(acc, (), args, 0, col0, 1, N, 1, BN, True, EVEN_N)
