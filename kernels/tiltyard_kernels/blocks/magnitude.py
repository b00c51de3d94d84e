"""DoRA (Liu et al., arXiv 2402.09353): y = f ⊙ (x · (W + s · B · A)ᵀ) with f = m / ‖W + s · B · A‖ for each row of W.

f is one number for each column of the product, so the base and the adapter are joined as ever and f is applied in the
epilogue. The norm is one program as well: W + Qᵀ · A is a product of rank r with W added in its epilogue, whose row
sums of squares are stored and whose tiles are not, so that W is read once and nothing of its size is written. As the
paper has it (4.3), and peft, the norm is a constant for the gradients: df = Σ dy · z over the rows, with
z = x · Wᵀ + P · Q, and dm = df / ‖W + s · B · A‖.

Dimension letters: M rows, K columns of x, N columns of the product, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from tiltyard_kernels.blocks import programs
from tiltyard_kernels.blocks.programs import scaled_columns
from tiltyard_kernels.epilogue import (
    Epilogue,
    Value,
    column_sum,
    epilogue,
    gelu_tanh,
    interleave,
    pairs,
    per_column,
    row_sum,
    silu,
    store,
    tile,
)
from tiltyard_kernels.gemm import gemm
from tiltyard_kernels.gemm.execute import runs_in_triton
from tiltyard_kernels.gemm.operands import multiprocessors

Results = Mapping[str, Value]


@epilogue(loads={"weight": tile()}, stores={"squares": row_sum()})
def _squares(acc: Value, weight: Value) -> Results:
    """acc is Qᵀ · A: Σ (W + Qᵀ · A)² of each row."""
    whole = acc + weight
    return {"squares": whole * whole}


@epilogue(stores={"z": store(), "kept": store()})
def _keep(acc: Value) -> Results:
    return {"z": acc, "kept": acc}


@epilogue(loads={"factor": per_column(), "bias": per_column()}, stores={"out": store()})
def _scaled_biased(acc: Value, factor: Value, bias: Value) -> Results:
    return {"out": acc * factor + bias}


@epilogue(loads={"factor": per_column(), "residual": tile()}, stores={"out": store()})
def _scaled_residual(acc: Value, factor: Value, residual: Value) -> Results:
    return {"out": acc * factor + residual}


@epilogue(loads={"factor": per_column(), "residual": tile()}, stores={"out": store()})
def _scaled_beside(acc: Value, factor: Value, residual: Value) -> Results:
    """With dropout: `residual` is what the base and the adapter make without f; acc is of the dropped x."""
    return {"out": residual + (factor - 1.0) * acc}


def _gated(name: str, activation: Callable[[Value], Value]) -> Epilogue:
    def program(acc: Value, factor: Value) -> Results:
        gate, up = pairs(acc * factor)
        return {"activated": activation(gate) * up}

    program.__name__ = name
    return epilogue(loads={"factor": per_column()}, stores={"activated": store(width=0.5)})(program)


def _gated_backward(name: str, slope_of: Callable[[Value], tuple[Value, Value]]) -> Epilogue:
    """As `programs.swiglu_backward`, through f: z is from before it, dz its gradient, and f's own is a column sum.

    On Hopper the column sum makes it spill 56 bytes a thread, 14 KB a tile. A pass of its own for that sum would read
    z and dz again, 256 KB a tile.
    """

    def program(acc: Value, z: Value, factor: Value) -> Results:
        gate, up = pairs(z * factor)
        activated, slope = slope_of(gate)
        dgate, dup = acc * up * slope, acc * activated
        dy = interleave(dgate, dup)
        dot = gate * dgate + up * dup
        return {"dz": dy * factor, "activated": activated * up, "dot": dot, "dfactor": dy * z}

    program.__name__ = name
    loads = {"z": tile(width=2), "factor": per_column(width=2)}
    stores = {"dz": store(width=2), "activated": store(), "dot": row_sum(), "dfactor": column_sum(width=2)}
    return epilogue(loads=loads, stores=stores)(program)


def _recorded(program: Epilogue) -> dict[bool, Epilogue]:
    """`program`, and under True the same keeping z for a backward."""
    return {False: program, True: _keep.then(program, through="kept")}


scaled = _recorded(scaled_columns)
scaled_biased = _recorded(_scaled_biased)
scaled_residual = _recorded(_scaled_residual)
scaled_beside = _recorded(_scaled_beside)
gated = {"silu": _recorded(_gated("dora_gated", silu)), "gelu_tanh": _recorded(_gated("dora_gated_gelu", gelu_tanh))}
gated_backward = {
    "silu": _gated_backward("dora_swiglu_backward", programs._silu_and_slope),
    "gelu_tanh": _gated_backward("dora_geglu_backward", programs._gelu_and_slope),
}


def dora_norm(weight: torch.Tensor, a: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """‖W + Qᵀ · A‖ of each row of a plain weight (N, K), with a (R, K), scale folded in, and q (R, N): (N,), in the
    accumulator's type. At least the smallest normal number, so that rows of zeros divide."""
    squares = gemm(q.t(), a, _squares, weight=weight)["squares"]
    return squares.sqrt().clamp_min(torch.finfo(squares.dtype).tiny)


def dora_factor(norm: torch.Tensor, magnitude: torch.Tensor, has_magnitude: torch.Tensor | None) -> torch.Tensor:
    """f (N,) in the norm's type: magnitude / norm, and 1 where there is no magnitude."""
    factor = magnitude.to(norm.dtype) / norm
    return factor if has_magnitude is None else torch.where(has_magnitude, factor, torch.ones_like(factor))


def magnitude_gradient(
    dfactor: torch.Tensor, norm: torch.Tensor, magnitude: torch.Tensor, has_magnitude: torch.Tensor | None
) -> torch.Tensor:
    """dm (N,) in the magnitude's type."""
    gradient = dfactor / norm
    if has_magnitude is not None:
        gradient = torch.where(has_magnitude, gradient, torch.zeros_like(gradient))
    return gradient.to(magnitude.dtype)


_LIBRARY: Any = torch.library.Library("tiltyard", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("through_factor(Tensor dy, Tensor z, Tensor factor) -> (Tensor, Tensor, Tensor)")


def through_factor(
    dy: torch.Tensor, z: torch.Tensor, factor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(dz, df, dot) through y = factor ⊙ z: dy ⊙ factor (M, N) in dy's type, Σ dy · z over the rows (N,), and
    Σ dz · z over the columns (M,), both in the factor's type. dy and z (M, N); factor (N,)."""
    dz, dfactor, dot = torch.ops.tiltyard.through_factor(dy, z, factor)
    return dz, dfactor, dot


def _through_factor(
    dy: torch.Tensor, z: torch.Tensor, factor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if not (runs_in_triton(dy) and dy.numel()):
        wide = dy.to(factor.dtype)
        scaled_dy, product = wide * factor, wide * z
        return scaled_dy.to(dy.dtype), product.sum(0), (product * factor).sum(1)
    import triton.language as tl  # noqa: PLC0415  # only where Triton is there

    from tiltyard_kernels.device.columns import factor_kernel  # noqa: PLC0415  # only where Triton is there

    dy = dy if dy.stride(1) == 1 else dy.contiguous()
    rows, columns = dy.shape
    block_m, block_n = 32, 128
    blocks = -(-columns // block_n)
    steps = -(-rows // block_m)
    per_split = -(-steps // min(steps, max(1, 8 * multiprocessors(dy.device) // blocks))) * block_m
    splits = -(-rows // per_split)
    dz = dy.new_empty(rows, columns)
    columns_sum, rows_sum = factor.new_empty(splits, columns), factor.new_empty(blocks, rows)
    factor_kernel[(blocks, splits)](
        dy,
        dy.stride(0),
        z.contiguous(),
        factor,
        dz,
        columns_sum,
        rows_sum,
        rows,
        columns,
        per_split,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        ACC=tl.float64 if factor.dtype == torch.float64 else tl.float32,
    )
    return dz, columns_sum.sum(0), rows_sum.sum(0)


_LIBRARY.impl("through_factor", _through_factor, "CompositeExplicitAutograd")


@torch.library.register_fake("tiltyard::through_factor", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(dy: torch.Tensor, _z: torch.Tensor, factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return dy.new_empty(dy.shape), factor.new_empty(dy.shape[1]), factor.new_empty(dy.shape[0])
