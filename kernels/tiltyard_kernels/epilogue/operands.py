"""What a program declares: the operands it loads and the results it stores."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch

Reduction = Literal["row_sum", "row_rstd", "row_max", "row_lse", "column_sum", "amax"]


@dataclass(frozen=True)
class Load:
    """One operand beside the accumulator.

    extent   shape, for an accumulator (M, N)
    tile     (M, N · width), or (M, period) when its columns repeat
    row      (M,)
    column   (N · width,)
    scalar   a Python number, passed at each launch
    """

    extent: Literal["tile", "row", "column", "scalar"]
    width: Fraction = Fraction(1)
    period: int = 0
    integer: bool = False


@dataclass(frozen=True)
class Store:
    """One result.

    tile        (M, N · width), in `dtype`, or the GEMM's own if None
    row_sum     (M,) float32: the sum over a row's columns; row_max and row_lse (log of the sum of exponentials) alike
    row_rstd    (M,) float32: 1 / √(the mean over a row's columns + the scalar operand `eps`)
    column_sum  (N · width,) float32: the sum over all rows
    amax        () float32: the largest magnitude
    """

    how: Literal["tile"] | Reduction
    width: Fraction = Fraction(1)
    dtype: torch.dtype | None = None
    eps: str | None = None


def tile(*, width: float | Fraction = 1) -> Load:
    """A matrix (M, N · width) read beside the accumulator: a residual, a saved activation. Width: ½, 1, 2, …"""
    return Load("tile", Fraction(width))


def periodic_tile(period: int, *, width: float | Fraction = 1) -> Load:
    """A matrix (M, period) whose columns repeat across the result: RoPE's cosines, the same for every head."""
    return Load("tile", Fraction(width), period=period)


def per_row(*, integer: bool = False) -> Load:
    """A vector (M,): one number for each row (token). Integers, such as labels, compare with `column_index`."""
    return Load("row", integer=integer)


def per_column(*, width: float | Fraction = 1) -> Load:
    """A vector (N · width,): one number for each column (feature)."""
    return Load("column", Fraction(width))


def scalar() -> Load:
    """A Python number that may differ from launch to launch without a new compilation."""
    return Load("scalar")


def store(*, width: float | Fraction = 1, dtype: torch.dtype | None = None) -> Store:
    """Write a matrix (M, N · width). The width must be that of the value the program returns."""
    return Store("tile", Fraction(width), dtype)


def row_sum() -> Store:
    """Reduce to (M,): the sum over each row."""
    return Store("row_sum")


def row_rstd(eps: str) -> Store:
    """Reduce squares to (M,): 1 / √(mean + eps) of each row, RMSNorm's statistic. `eps` names a scalar operand."""
    return Store("row_rstd", eps=eps)


def row_max() -> Store:
    """Reduce to (M,): the largest value of each row."""
    return Store("row_max")


def row_logsumexp() -> Store:
    """Reduce to (M,): log Σ exp over each row, online, with the running maximum subtracted."""
    return Store("row_lse")


def column_sum(*, width: float | Fraction = 1) -> Store:
    """Reduce to (N · width,): the sum over each column."""
    return Store("column_sum", Fraction(width))


def amax() -> Store:
    """Reduce to a scalar: the largest magnitude, from which a cast's scale is chosen."""
    return Store("amax")
