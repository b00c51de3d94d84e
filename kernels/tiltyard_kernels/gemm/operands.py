"""What a plan is made from: how a product's operands lie in memory, and what its device is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch

from tiltyard_kernels.gemm.plan import View


@dataclass(frozen=True)
class Matrix:
    """An operand of the product as the kernel reads it: row-major memory, possibly of the transpose."""

    rows: int
    columns: int
    stride: int
    is_transposed: bool
    is_described: bool
    is_copied: bool

    def view(self, block: tuple[int, int]) -> View | int:
        """How the kernel takes it: a descriptor for blocks of this many (rows, columns) of the matrix, or a stride."""
        if not self.is_described:
            return self.stride
        return View([self.rows, self.columns], [self.stride, 1], list(block[::-1] if self.is_transposed else block))


def as_matrix(x: torch.Tensor, *, described: bool) -> Matrix:
    """Read `x` (2-D) as it lies, by rows or by columns; copy it only if neither is contiguous."""
    if x.stride(1) == 1:
        return Matrix(x.shape[0], x.shape[1], x.stride(0), False, described and can_describe(x), False)
    if x.stride(0) == 1:
        return Matrix(x.shape[1], x.shape[0], x.stride(1), True, described and can_describe(x.t()), False)
    is_aligned = x.shape[1] * x.element_size() % 16 == 0 and x.numel() > 0
    return Matrix(x.shape[0], x.shape[1], x.shape[1], False, described and is_aligned, True)


def can_describe(x: torch.Tensor) -> bool:
    """Whether a TMA descriptor fits: contiguous rows that start at multiples of 16 bytes, and an element to load."""
    return (
        x.numel() > 0
        and x.stride(1) == 1
        and x.data_ptr() % 16 == 0
        and x.stride(0) * x.element_size() % 16 == 0
        and x.stride(0) >= x.shape[1]
    )


def is_hopper(device: torch.device) -> bool:
    """Whether descriptors are used: the interpreter has them as well."""
    gpu = gpu_of(device)
    return gpu is None or gpu[1] >= (9, 0)


class Gpu(NamedTuple):
    """What a launch depends on in a GPU."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_bytes: int  # the most that one program may have


# The GPU that tensors on the device "meta" stand for while kernels are compiled without one (`cache.building`).
STAND_IN: list[Gpu] = []


def gpu_of(device: torch.device) -> tuple[str, tuple[int, int]] | None:
    """Its name and compute capability; None for a CPU, where the interpreter runs."""
    if device.type == "meta" and STAND_IN:
        return STAND_IN[0][:2]
    return _gpu_of(device)


@cache
def _gpu_of(device: torch.device) -> tuple[str, tuple[int, int]] | None:
    if device.type == "cpu":
        return None
    return torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)


def multiprocessors(device: torch.device) -> int:
    if device.type == "meta" and STAND_IN:
        return STAND_IN[0].multiprocessors
    return _multiprocessors(device)


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type == "cpu":
        return 3  # the interpreter runs programs one after another; several show that they share the tiles rightly
    return torch.cuda.get_device_properties(device).multi_processor_count
