"""Which tile sizes a launch uses: a shipped table per GPU and shape class, looked up, never searched at run time.

The table is made by `python -m tiltyard_kernels.gemm.tune` and lies beside this file, one JSON for each GPU. An entry
holds for one layout (nt: both operands K-contiguous, as in a forward; nn: dX; tn: dW), one element size and one shape
(M, N, K); a launch takes the entry nearest in log2 of the three. A GPU without a table, or a shape far from every
entry, gets a generic choice by compute capability and number of tiles.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

# An entry holds for shapes so near to its own: a factor of two in each size, or of eight in one. Beyond, a choice by
# the number of tiles is better than one that was made for another number.
NEAR = 3.0
# Up to so many rows a dense product is bound by reading its weight.
SKINNY_ROWS_MAX = 16
TABLES_DIR = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class Config:
    """One way to run the mainloop: a tile of block_m × block_n, blocks of block_k, and how the work is laid out."""

    block_m: int = 128
    block_n: int = 256
    block_k: int = 64
    stages: int = 3
    warps: int = 8
    group: int = 8
    subtiles: int = 2
    flatten: bool = True
    split: int = 1
    resident: int = 1  # programs to a multiprocessor: with two, one's epilogue runs under the other's products

    def __post_init__(self) -> None:
        for name in ("block_m", "block_n", "block_k"):
            size = getattr(self, name)
            if size < 16 or size & (size - 1):
                raise ValueError(f"{name} is {size}; it must be a power of two of at least 16")
        if self.subtiles not in (1, 2, 4):
            raise ValueError(f"subtiles is {self.subtiles}; it must be 1, 2 or 4")
        if self.split < 1:
            raise ValueError(f"split is {self.split}; it must be at least 1")

    def fitted(self, granularity: int, widest: float, *, loads_tiles: bool, has_pair: bool = False) -> Config:
        """The same with sub-tiles that suit an epilogue.

        granularity   a sub-tile's columns must be a multiple of it, so that groups and pairs stay whole
        widest        how many columns the epilogue's values have, at most, for each of the accumulator's
        loads_tiles   whether it reads matrices, which take staging in shared memory and registers
        has_pair      whether a low-rank product joins, whose blocks take shared memory too

        The limits were read off the compiler for sm_90a: beside 128 registers of accumulator a thread, 32 elements of a
        sub-tile with matrices to read and 64 without stay clear of spills; heads of 128 columns with their norm do not,
        and need a smaller accumulator.
        """
        fitted = self
        if fitted.resident > 1 and loads_tiles:
            fitted = replace(fitted, subtiles=4)
        if fitted.resident > 1 and (has_pair or (loads_tiles and widest > 1)):
            # Where no memory is left for a second program, one alone with small tiles is the slowest of all: a LoRA
            # step's products took a tenth longer.
            fitted = replace(fitted, block_m=128, block_n=256, stages=3, warps=8, subtiles=2, resident=1)
        if granularity > 64 and fitted.block_m * fitted.block_n > 64 * 32 * fitted.warps:
            fitted = replace(
                fitted, block_m=128, block_n=max(128, granularity), stages=4, warps=8, subtiles=1, resident=1
            )
        threads = 32 * fitted.warps
        is_tight = loads_tiles and fitted.block_m * fitted.block_n > 64 * threads
        columns = (32 if is_tight else 64) * threads // fitted.block_m
        spread = max(1.0, widest / 2 if is_tight else widest)
        while fitted.subtiles < 4 and fitted.block_n // fitted.subtiles * spread > columns:
            fitted = replace(fitted, subtiles=fitted.subtiles * 2)
        if fitted.subtiles == 4 and widest > 1:
            fitted = replace(fitted, stages=min(3, fitted.stages))
        while fitted.subtiles > 1 and fitted.block_n // fitted.subtiles < granularity:
            fitted = replace(fitted, subtiles=fitted.subtiles // 2)
        if fitted.block_n < granularity:
            fitted = replace(fitted, block_n=granularity)
        return fitted


@dataclass(frozen=True)
class Skinny:
    """One way to run a product of few rows: each program block_m rows, block_n columns and one of `split` parts of K.

    With `fma`, a single row of a dense or 8-bit weight is summed without the tensor cores; with `block_m` 1, of an int4
    weight, by `device.single_row`, which does not cut K.
    """

    block_m: int = 16
    block_n: int = 64
    block_k: int = 128
    stages: int = 4
    warps: int = 4
    split: int = 1
    fma: bool = True


# For one row of an int4 weight with so many columns at most: one launch, which on an H200 took 7.2 µs of 4096 × 4096
# where two took 9.2, and 25.0 of 28672 × 4096 where they took 25.7; with 14336 columns 16.8 and 16.4.
SINGLE_ROW = Skinny(1, 8, 2048, stages=1, warps=2)
SINGLE_ROW_COLUMNS_MAX = 8192
# For a four-bit weight and up to 16 rows, and how many of its programs a multiprocessor gets: the fastest of seventy
# on an H200.
FEW_ROWS_OF_FOUR_BITS = Skinny(8, 64, 128, stages=3, warps=2)
FOUR_BIT_PROGRAMS = 8

# Half of the usual tile, by its rows or by its columns: the fastest of eight each on an H200.
SMALLER = Config(64, 256, 64, stages=4, warps=8, subtiles=2)
SMALLER_OF_DW = Config(128, 128, 64, stages=5, warps=4, subtiles=2)

# For the interpreter, where small tiles exercise more edges and arithmetic is slow; it has no multiprocessors to fill.
INTERPRETER = Config(32, 64, 32, stages=1, warps=4, group=2, subtiles=2, flatten=False)


def choose(
    m: int, n: int, k: int, *, layout: str, itemsize: int, gpu: str, capability: tuple[int, int], programs: int = 132
) -> Config:
    """The configuration for C (m, n) with a reduction over k, on the GPU of that name (as torch reports it)."""
    entries = [entry for entry in _table(gpu) if entry["layout"] == layout and entry["itemsize"] == itemsize]
    if entries:
        nearest = min(entries, key=lambda entry: _distance((m, n, k), entry["shape"]))
        if _distance((m, n, k), nearest["shape"]) <= NEAR:
            found = Config(**nearest["config"])
            return _in_fewer_rounds(found, m, n, layout, programs) if itemsize == 2 else found
    return _split_where_few(_generic(m, n, itemsize, capability, programs), m, n, k, programs)


def _in_fewer_rounds(config: Config, m: int, n: int, layout: str, programs: int) -> Config:
    """A smaller tile where the last round of `config`'s leaves so many multiprocessors idle that it is quicker: 192
    tiles of 128 × 256 take two rounds of 132, 384 of half the size three of half the time. On an H200 with 132 of them
    (2048, 3072, 2048) came from 49.9 to 40.5 µs, and a dW (3072, 2048, 8192) from 187 to 142."""

    def work(one: Config) -> int:
        return math.ceil(math.ceil(m / one.block_m) * math.ceil(n / one.block_n) / programs) * one.block_m * one.block_n

    smaller = SMALLER_OF_DW if layout == "tn" else SMALLER
    return smaller if config.split == 1 and work(smaller) < 0.85 * work(config) else config


def _split_where_few(config: Config, m: int, n: int, k: int, programs: int) -> Config:
    """Cut K into parts where tiles keep less than half of the multiprocessors busy and K is long enough to share.

    Each part costs a pass over the result in float32, so that a part keeps at least eight blocks. Their number is a
    constant of the kernel: powers of two keep apart no more kernels than that.
    """
    tiles = math.ceil(m / config.block_m) * math.ceil(n / config.block_n)
    parts = min(programs // max(1, tiles), math.ceil(k / config.block_k) // 8, 16)
    return replace(config, split=1 << (parts.bit_length() - 1)) if parts > 1 else config


def choose_skinny(m: int, n: int, k: int, *, bits: int, group: int, programs: int, on_cpu: bool = False) -> Skinny:
    """The configuration for few rows, or for a quantised weight of `bits`, scaled by groups of columns if not 0.

    About four programs a multiprocessor keep enough loads in flight; a block may not straddle groups.
    """
    if on_cpu:
        return Skinny(16, 32, min(32, group or 32), stages=1, split=2, fma=True)
    block_k = min(group or 128, 128)
    if bits > 4 and m == 1:
        config = Skinny(16, 16, min(512, group or 512), stages=2, warps=4)
    elif m <= 16:
        rows = 8 if m <= 8 else 16
        config = replace(FEW_ROWS_OF_FOUR_BITS if bits == 4 else Skinny(), block_m=rows, block_k=block_k)
    elif m <= 32:
        config = Skinny(32, 128 if bits == 4 else 64, block_k, stages=3, warps=4)
    elif bits == 4:
        config = Skinny(64, 128, block_k, stages=3, warps=8)
    else:
        config = Skinny(64, 64, min(block_k, 64), stages=3, warps=4)
    tiles = math.ceil(n / config.block_n) * math.ceil(m / config.block_m)
    per_processor = (FOUR_BIT_PROGRAMS if bits == 4 else 4) if m <= 16 else 2
    parts = min(max(1, per_processor * programs // max(1, tiles)), max(1, math.ceil(k / config.block_k) // 4), 16)
    return replace(config, split=parts)


def _generic(m: int, n: int, itemsize: int, capability: tuple[int, int], programs: int) -> Config:
    block_k = max(16, 128 // itemsize)
    if m <= 64:
        return Config(64, 128, block_k, stages=4, warps=4, group=1, subtiles=1)
    if capability < (9, 0) or itemsize > 2:  # no wgmma: the accumulator lives in fewer registers
        return Config(128, 128, max(16, block_k // 2), stages=3, warps=8, subtiles=1, flatten=False)
    if math.ceil(m / 128) * math.ceil(n / 256) < programs:
        return Config(128, 128, block_k, stages=4, warps=8, subtiles=1)
    return Config(128, 256, block_k, stages=3, warps=8, subtiles=2)


def _distance(shape: tuple[int, int, int], other: list[int]) -> float:
    return sum(abs(math.log2(max(mine, 1) / theirs)) for mine, theirs in zip(shape, other, strict=True))


def table_name(gpu: str) -> str:
    """The file name for a GPU's table: 'NVIDIA H200' → nvidia-h200.json."""
    return "-".join(gpu.lower().replace("/", " ").split()) + ".json"


@cache
def _table(gpu: str) -> list[dict[str, Any]]:
    path = TABLES_DIR / table_name(gpu)
    if not path.is_file():
        return []
    entries: list[dict[str, Any]] = json.loads(path.read_text())["entries"]
    return entries


def as_entry(shape: tuple[int, int, int], layout: str, itemsize: int, config: Config) -> dict[str, object]:
    """An entry of the table."""
    return {"layout": layout, "itemsize": itemsize, "shape": list(shape), "config": asdict(config)}
