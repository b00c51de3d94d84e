"""Dropout before adapters as operators: the kernels' part, and the same masks in plain PyTorch to hold them to.

Masks come of seeds (E,) int64, one for each adapter, drawn from torch's generator of the device: `torch.manual_seed`
and activation checkpointing repeat them, and nothing of the size of x is kept between forward and backward.

Dimension letters: M rows, K columns of x, E adapters, R the sum of their ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch

from tiltyard_kernels.gemm.operands import multiprocessors

_WORD = 0xFFFFFFFF
_LIBRARY: Any = torch.library.Library("tiltyard", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("drop(Tensor x, Tensor seeds, int index, float rate) -> Tensor")
_LIBRARY.define("dropped_projection(Tensor x, Tensor a, Tensor seeds, int[] ranks, float[] rates) -> Tensor")
_LIBRARY.define(
    "dropped_gradients(Tensor dp, Tensor? x, Tensor a, Tensor seeds, int[] ranks, float[] rates, bool has_dx)"
    " -> (Tensor, Tensor)"
)


def drop(x: torch.Tensor, seeds: torch.Tensor, index: int, rate: float) -> torch.Tensor:
    """dropout(x) (M, K) with the mask of seeds[index]. Its own adjoint: the same on a gradient gives dx."""
    made: torch.Tensor = torch.ops.tiltyard.drop(x, seeds, index, rate)
    return made


def dropped_projection(
    x: torch.Tensor, a: torch.Tensor, seeds: torch.Tensor, ranks: Sequence[int], rates: Sequence[float]
) -> torch.Tensor:
    """P (M, R): for each adapter dropout(x) · its rows of a (R, K) transposed, x being read as it is."""
    made: torch.Tensor = torch.ops.tiltyard.dropped_projection(x, a, seeds, ranks, rates)
    return made


def dropped_gradients(  # noqa: PLR0917  # what the operator takes
    dp: torch.Tensor,
    x: torch.Tensor | None,
    a: torch.Tensor,
    seeds: torch.Tensor,
    ranks: Sequence[int],
    rates: Sequence[float],
    *,
    has_dx: bool,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(dx, da): Σ mask ⊙ (dp · a) / (1 − rate) over the adapters (M, K), and dpᵀ · dropout(x) (R, K).

    Without `has_dx` or without x the one or the other is None.
    """
    dx, da = torch.ops.tiltyard.dropped_gradients(dp, x, a, seeds, ranks, rates, has_dx)
    return dx if has_dx else None, None if x is None else da


def kept_reference(seed: int, rows: int, columns: int, rate: float) -> torch.Tensor:
    """The mask (rows, columns) that the kernels draw from `seed`: Philox 4x32-10 on the CPU, in 64-bit integers."""
    groups = -(-columns // 4)
    c0 = torch.arange(rows)[:, None].expand(rows, groups)
    c1 = torch.arange(groups)[None, :].expand(rows, groups)
    zero = torch.zeros_like(c0)
    words = _words((seed & _WORD, (seed >> 32) & _WORD), (c0, c1, zero, zero))
    return (torch.stack(words, 2).flatten(1)[:, :columns] >> 1) >= _threshold(rate)


def _words(key: tuple[int, int], counter: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Philox 4x32-10: four words for each counter."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        high0, low0 = _wide_product(0xD2511F53, c0)
        high2, low2 = _wide_product(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def _wide_product(factor: int, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(upper, lower) 32 bits of factor · words. The upper come of halves, since the product does not fit 63 bits."""
    upper, lower = factor >> 16, factor & 0xFFFF
    high = (words * upper + ((words * lower) >> 16)) >> 16
    return high, (words * factor) & _WORD


def _threshold(rate: float) -> int:
    return min(round(rate * 2**31), 2**31 - 1)


def _spans(ranks: Sequence[int]) -> Iterator[tuple[int, slice]]:
    first = 0
    for index, rank in enumerate(ranks):
        yield index, slice(first, first + rank)
        first += rank


def _accumulator(x: torch.Tensor) -> tuple[torch.dtype, Any]:
    import triton.language as tl  # noqa: PLC0415  # only where Triton is there

    return (torch.float64, tl.float64) if x.dtype == torch.float64 else (torch.float32, tl.float32)


def _blocks(rank: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """(RANK, rows, columns, warps) of a kernel's tiles: the smaller the more an adapter takes of the registers, which
    in float32, multiplied without tensor cores, is most."""
    padded = max(16, 1 << (rank - 1).bit_length())
    if dtype.itemsize > 2:
        return padded, 16, 16 if padded > 64 else 32, 8
    return padded, 64 if padded <= 64 else 32, 64 if padded <= 128 else 32, 4 if padded <= 256 else 8


def _split(extent: int, block: int, programs: int, device: torch.device) -> tuple[int, int]:
    """(parts, length of each) of `extent`, so that some eight programs run on each multiprocessor."""
    wanted = max(1, 8 * multiprocessors(device) // max(1, programs))
    blocks = max(1, -(-extent // block))
    length = -(-blocks // min(wanted, blocks)) * block
    return max(1, -(-extent // length)), length


def _rows_contiguous(x: torch.Tensor) -> torch.Tensor:
    return x if x.stride(1) == 1 else x.contiguous()


def _drop(x: torch.Tensor, seeds: torch.Tensor, index: int, rate: float) -> torch.Tensor:
    from tiltyard_kernels.device.dropout import drop_kernel  # noqa: PLC0415  # only where Triton is there

    x = _rows_contiguous(x)
    rows, columns = x.shape
    out = x.new_empty(rows, columns)
    if out.numel():
        grid = (-(-rows // 32), -(-columns // 128))
        drop_kernel[grid](
            x, x.stride(0), out, seeds, index, _threshold(rate), 1 / (1 - rate), rows, columns, BLOCK_M=32, BLOCK_K=128
        )
    return out


def _dropped_projection(
    x: torch.Tensor, a: torch.Tensor, seeds: torch.Tensor, ranks: Sequence[int], rates: Sequence[float]
) -> torch.Tensor:
    from tiltyard_kernels.device.dropout import project_kernel  # noqa: PLC0415  # only where Triton is there

    x, a = _rows_contiguous(x), _rows_contiguous(a)
    rows, columns = x.shape
    p = x.new_empty(rows, a.shape[0])
    wide, acc = _accumulator(x)
    index = first = 0
    for (rank, rate), group in groupby(zip(ranks, rates, strict=True)) if p.numel() else ():
        count = len(list(group))
        span = slice(first, first + count * rank)
        padded, block_m, block_k, warps = _blocks(rank, a.dtype)
        programs = -(-rows // block_m)
        splits, length = _split(columns, block_k, programs * count, x.device)
        partial = x.new_empty(splits, rows, count * rank, dtype=wide)
        project_kernel[(programs, splits, count)](
            x,
            x.stride(0),
            a[span],
            a.stride(0),
            partial,
            seeds,
            index,
            _threshold(rate),
            1 / (1 - rate),
            rows,
            columns,
            rank,
            length,
            RANK=padded,
            BLOCK_M=block_m,
            BLOCK_K=block_k,
            ACC=acc,
            num_warps=warps,
        )
        p[:, span] = partial.sum(0)
        index, first = index + count, span.stop
    return p


def _dropped_gradients(  # noqa: PLR0917  # the operator's arguments
    dp: torch.Tensor,
    x: torch.Tensor | None,
    a: torch.Tensor,
    seeds: torch.Tensor,
    ranks: Sequence[int],
    rates: Sequence[float],
    has_dx: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    from tiltyard_kernels.device.dropout import gradient_kernel  # noqa: PLC0415  # only where Triton is there

    dp, a = _rows_contiguous(dp), _rows_contiguous(a)
    x = None if x is None else _rows_contiguous(x)
    rows, columns = dp.shape[0], a.shape[1]
    dx, da = _empty_gradients(dp, x, a, has_dx)
    if not (rows and columns):
        return dx, da.zero_()
    wide, acc = _accumulator(a)
    for index, span in _spans(ranks):
        rank = ranks[index]
        padded, block_m, block_k, warps = _blocks(rank, a.dtype)
        programs = -(-columns // block_k)
        splits, length = _split(rows, block_m, programs, a.device)
        partial = a.new_empty(splits, rank, columns, dtype=wide) if x is not None else a
        gradient_kernel[(programs, splits)](
            dp[:, span],
            dp.stride(0),
            a if x is None else x,
            0 if x is None else x.stride(0),
            a[span],
            a.stride(0),
            dx,
            partial,
            seeds,
            index,
            _threshold(rates[index]),
            1 / (1 - rates[index]),
            rows,
            columns,
            rank,
            length,
            RANK=padded,
            BLOCK_M=block_m,
            BLOCK_K=block_k,
            HAS_DX=has_dx,
            HAS_DA=x is not None,
            ADDS=index > 0,
            ACC=acc,
            num_warps=warps,
        )
        if x is not None:
            da[span] = partial.sum(0)
    return dx, da


def _empty_gradients(
    dp: torch.Tensor, x: torch.Tensor | None, a: torch.Tensor, has_dx: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Results of an operator must be tensors: one that is not wanted is empty."""
    dx = a.new_empty(dp.shape[0], a.shape[1]) if has_dx else a.new_empty(0)
    return dx, a.new_empty(0) if x is None else a.new_empty(a.shape)


_LIBRARY.impl("drop", _drop, "CompositeExplicitAutograd")
_LIBRARY.impl("dropped_projection", _dropped_projection, "CompositeExplicitAutograd")
_LIBRARY.impl("dropped_gradients", _dropped_gradients, "CompositeExplicitAutograd")


@torch.library.register_fake("tiltyard::drop", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(x: torch.Tensor, *_arguments: Any) -> torch.Tensor:
    return x.new_empty(x.shape)


@torch.library.register_fake("tiltyard::dropped_projection", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(x: torch.Tensor, a: torch.Tensor, *_arguments: Any) -> torch.Tensor:
    return x.new_empty(x.shape[0], a.shape[0])


@torch.library.register_fake("tiltyard::dropped_gradients", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(dp: torch.Tensor, x: torch.Tensor | None, a: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return _empty_gradients(dp, x, a, arguments[-1])
