"""Run a program over a product: by the plan that an earlier call with such operands made, or by a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tiltyard_kernels.epilogue.program import Epilogue
from tiltyard_kernels.gemm.config import Config, Skinny
from tiltyard_kernels.gemm.making import Pair, PlanMaker, ScalePair
from tiltyard_kernels.gemm.operands import is_hopper
from tiltyard_kernels.gemm.packed import PackedWeight
from tiltyard_kernels.gemm.plan import Plan, Plans, facts

_PLANS = Plans()

Operands = Mapping[str, torch.Tensor | float]


def launch(
    program: Epilogue,
    a: torch.Tensor,
    b: torch.Tensor | PackedWeight,
    *,
    low_rank: Pair | None,
    scales: ScalePair | None = None,
    out_dtype: torch.dtype | None,
    operands: Operands,
    into: Mapping[str, torch.Tensor] | None = None,
    config: Config | Skinny | None = None,
) -> dict[str, torch.Tensor]:
    """Run `program` over a · b (+ P · Q); `b` may be a quantised weight (N, K), read transposed. On a CPU this runs in
    Triton's interpreter.

    Shapes and types are checked by the caller (`ops`).
    """
    key = plan_key(program, a, b, low_rank, scales, out_dtype, operands, into, config)
    plan = _PLANS.get(key)
    if plan is None:
        plan = make_plan(key, program, a, b, low_rank, scales, out_dtype, operands, into, config)
    return run_plan(plan, a, b, low_rank, scales, operands, into)


def plan_key(  # noqa: PLR0917  # a launch's parts, on its fast path
    program: Epilogue,
    a: torch.Tensor,
    b: torch.Tensor | PackedWeight,
    low_rank: Pair | None,
    scales: ScalePair | None,
    out_dtype: torch.dtype | None,
    operands: Operands,
    into: Mapping[str, torch.Tensor] | None,
    config: Config | Skinny | None,
) -> Any:
    """All that a plan depends on."""
    right = facts(b) if isinstance(b, torch.Tensor) else _packed_facts(b)
    return (
        program,
        facts(a),
        right,
        None if low_rank is None else (facts(low_rank[0]), facts(low_rank[1])),
        None if scales is None else (facts(scales[0]), facts(scales[1])),
        out_dtype,
        tuple([(name, facts(value)) for name, value in operands.items()]),
        None if into is None else tuple([(name, facts(value)) for name, value in into.items()]),
        config,
    )


def _packed_facts(b: PackedWeight) -> Any:
    return (b.shape, b.format, b.kind, b.group, tuple([(name, facts(part)) for name, part in b.tensors().items()]))


def find_plan(key: Any) -> Plan | None:
    """The plan that an earlier call made."""
    return _PLANS.get(key)


def run_plan(  # noqa: PLR0917  # as plan_key
    plan: Plan,
    a: torch.Tensor,
    b: torch.Tensor | PackedWeight,
    low_rank: Pair | None,
    scales: ScalePair | None,
    operands: Operands,
    into: Mapping[str, torch.Tensor] | None,
) -> dict[str, torch.Tensor]:
    """Launch with these addresses."""
    tensors: dict[str, Any] = {"@a": a}
    if isinstance(b, torch.Tensor):
        tensors["@b"] = b
    else:
        tensors.update({f"@{name}": part for name, part in b.tensors().items()})
    if low_rank is not None:
        tensors["@p"], tensors["@q"] = low_rank
    if scales is not None:
        tensors["@row_scale"], tensors["@column_scale"] = scales
        if low_rank is not None and scales[1] is not None:
            q = low_rank[1]
            tensors["@q"] = torch.div(q, scales[1], out=torch.empty_like(q))  # as the kernel wants it
    for name, value in operands.items():
        tensors[name] = float(value) if isinstance(value, int) else value
    return plan.run(tensors, into)


def make_plan(  # noqa: PLR0917  # as plan_key
    key: Any,
    program: Epilogue,
    a: torch.Tensor,
    b: torch.Tensor | PackedWeight,
    low_rank: Pair | None,
    scales: ScalePair | None,
    out_dtype: torch.dtype | None,
    operands: Operands,
    into: Mapping[str, torch.Tensor] | None,
    config: Config | Skinny | None,
) -> Plan:
    """Work out and keep the plan for `key`."""
    on_hopper = is_hopper(a.device)
    maker = PlanMaker(program, a, b, low_rank, scales, dict(operands), dict(into or {}), out_dtype, on_hopper=on_hopper)
    return _PLANS.put(key, maker.plan(config))
