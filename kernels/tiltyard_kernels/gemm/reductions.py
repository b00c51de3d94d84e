"""Results that are reduced: room for what each sub-tile writes, and the steps by which those are joined."""

from __future__ import annotations

from typing import Any

import torch

from tiltyard_kernels.epilogue.program import Epilogue
from tiltyard_kernels.gemm.plan import Result, Step, View

_ROWS = 32  # of a program that finishes statistics
_PIECES_MAX = 64  # that it reads at once


def partials(
    program: Epilogue, shape: tuple[int, int], wide: torch.dtype, sub_tile: tuple[int, int, int]
) -> list[Result]:
    """Room for one partial result a sub-tile, of a product (M, N); `sub_tile` is its rows, its columns, and how many of
    them make a row."""
    m, n = shape
    block_m, step, pieces = sub_tile
    rows = -(-m // block_m)
    made: list[Result] = []
    for name, store in program.stores.items():
        match store.how:
            case "row_sum" | "row_rstd" | "row_max":
                made.append(Result(f"{name}@partial", (pieces, m), wide))
            case "row_lse":
                made.append(Result(f"{name}@partial", (pieces, m), wide))
                made.append(Result(f"{name}@second", (pieces, m), wide))
            case "column_sum":
                made.append(Result(f"{name}@partial", (rows, int(n * store.width)), wide))
            case "amax":
                made.append(Result(f"{name}@partial", (rows * -(-n // step),), wide, True))
    return made


def statistics(program: Epilogue, shape: tuple[int, int], scratch: list[Result]) -> list[Step]:
    """One step for each rstd, from its partial sums of squares in `scratch`, to which the rstd's room is added."""
    from tiltyard_kernels.device.rows import rstd_kernel  # noqa: PLC0415  # only where Triton is there

    m, n = shape
    made: list[Step] = []
    for name, store in program.stores.items():
        if store.how != "row_rstd" or store.eps is None:
            continue
        partial = next(one for one in scratch if one.name == f"{name}@partial")
        pieces = partial.shape[0]
        scratch.append(Result(name, (m,), partial.dtype))
        block = min(_PIECES_MAX, 1 << (pieces - 1).bit_length())
        slots: list[tuple[int, str, View | int | None]] = [
            (0, partial.name, None),
            (1, name, None),
            (2, store.eps, None),
        ]
        template: list[Any] = [None, None, None, pieces, m, n, block, _ROWS]
        made.append(Step(rstd_kernel, (-(-m // _ROWS),), template, slots, warps=4, stages=1))
    return made


def finishes(program: Epilogue, *, is_empty: bool) -> list[tuple[str, str]]:
    """The reductions that PyTorch joins, by name and kind: those that have no step."""
    return [
        (name, store.how)
        for name, store in program.stores.items()
        if store.how != "tile" and (is_empty or store.how != "row_rstd")
    ]
