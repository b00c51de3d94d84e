"""A program as a PyTorch operator: schema, shapes for tracing, and where it runs.

`torch.ops.tiltyard.<name>_<hash>(a, b, p, q, row_scale, column_scale, out_dtype, *operands) -> Tensor[]`, one result
for each store, in order. The operator is opaque to torch.compile, so a model that uses it has no graph break; gradients
belong to the functions built from several programs (`tiltyard_kernels.blocks`), not to a program.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from tiltyard_kernels.epilogue.codegen import Access, source_of
from tiltyard_kernels.epilogue.program import Epilogue

_LIBRARY: Any = torch.library.Library("tiltyard", "FRAGMENT")  # type: ignore[no-untyped-call]
_REGISTERED: dict[str, Any] = {}


def register(program: Epilogue) -> Any:
    """The operator of `program`; programs with the same source and declarations share one."""
    declarations = f"{dict(program.loads)}{dict(program.stores)}"
    digest = hashlib.sha256((source_of(program, Access()) + declarations).encode()).hexdigest()[:10]
    name = f"{program.name}_{digest}"
    if name in _REGISTERED:
        return _REGISTERED[name]
    parameters = ["Tensor a", "Tensor b", "Tensor? p", "Tensor? q", "Tensor? row_scale", "Tensor? column_scale"]
    parameters.append("ScalarType? out_dtype")
    parameters += [f"{'float' if load.extent == 'scalar' else 'Tensor'} {key}" for key, load in program.loads.items()]
    _LIBRARY.define(f"{name}({', '.join(parameters)}) -> Tensor[]")

    def run(  # noqa: PLR0917  # operators take them by position
        a: torch.Tensor,
        b: torch.Tensor,
        p: torch.Tensor | None,
        q: torch.Tensor | None,
        row_scale: torch.Tensor | None,
        column_scale: torch.Tensor | None,
        out_dtype: torch.dtype | None,
        *operands: torch.Tensor | float,
    ) -> list[torch.Tensor]:
        from tiltyard_kernels.gemm.execute import execute  # noqa: PLC0415  # the language does not need the mainloop

        low_rank = None if p is None or q is None else (p, q)
        scales = None if row_scale is None else (row_scale, column_scale)
        named = dict(zip(program.loads, operands, strict=True))
        made = execute(program, a, b, low_rank=low_rank, scales=scales, out_dtype=out_dtype, operands=named)
        return list(made.values())

    def shapes(
        a: torch.Tensor,
        b: torch.Tensor,
        _p: torch.Tensor | None,
        _q: torch.Tensor | None,
        _row_scale: torch.Tensor | None,
        _column_scale: torch.Tensor | None,
        out_dtype: torch.dtype | None,
        *_operands: torch.Tensor | float,
    ) -> list[torch.Tensor]:
        return list(empty_results(program, a, b, out_dtype).values())

    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"tiltyard::{name}", shapes, lib=_LIBRARY)
    _REGISTERED[name] = getattr(torch.ops.tiltyard, name).default
    return _REGISTERED[name]


def result_dtype(a: torch.Tensor, out_dtype: torch.dtype | None) -> torch.dtype:
    """The type of tile results that declare none: what the caller asks for, else the inputs' (bfloat16 for fp8)."""
    if out_dtype is not None:
        return out_dtype
    return torch.bfloat16 if a.dtype.itemsize == 1 else a.dtype


def empty_results(
    program: Epilogue, a: torch.Tensor, b: torch.Tensor, out_dtype: torch.dtype | None
) -> dict[str, torch.Tensor]:
    """New tensors of the results' shapes and types."""
    m, n = a.shape[0], b.shape[1]
    reduced = torch.float64 if a.dtype == torch.float64 else torch.float32
    made: dict[str, torch.Tensor] = {}
    for name, store in program.stores.items():
        # In this order, which keeps symbolic sizes whole.
        columns = n * store.width.numerator // store.width.denominator
        match store.how:
            case "tile":
                made[name] = a.new_empty(m, columns, dtype=store.dtype or result_dtype(a, out_dtype))
            case "column_sum":
                made[name] = a.new_empty(columns, dtype=reduced)
            case "amax":
                made[name] = a.new_empty((), dtype=reduced)
            case _:
                made[name] = a.new_empty(m, dtype=reduced)
    return made
