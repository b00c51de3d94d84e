"""Running a program: on the GPU, in Triton's interpreter, or as its own reference where there is neither."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from functools import cache

import torch

from tiltyard_kernels.epilogue.operator import empty_results
from tiltyard_kernels.epilogue.program import Epilogue
from tiltyard_kernels.epilogue.reference import evaluate
from tiltyard_kernels.gemm.config import Config, Skinny
from tiltyard_kernels.gemm.operands import STAND_IN

_HAS_TRITON = importlib.util.find_spec("triton") is not None


def runs_in_triton(x: torch.Tensor) -> bool:
    """Whether kernels run on `x`: a GPU from Ampere on, or a CPU in Triton's interpreter (TRITON_INTERPRET=1).

    The interpreter gets bfloat16 and fp8 products wrong without saying so; those fall back to the reference.
    """
    if not _HAS_TRITON:
        return False
    if x.device.type == "cuda":
        return x.dtype != torch.float64 and _is_ampere(x.device)
    if x.device.type == "meta":
        return bool(STAND_IN) and x.dtype != torch.float64
    is_exact = x.dtype in (torch.float16, torch.float32, torch.float64)
    return x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1" and is_exact


@cache
def _is_ampere(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def execute(
    program: Epilogue,
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    low_rank: tuple[torch.Tensor, torch.Tensor] | None,
    scales: tuple[torch.Tensor, torch.Tensor | None] | None = None,
    out_dtype: torch.dtype | None,
    operands: Mapping[str, torch.Tensor | float],
    into: Mapping[str, torch.Tensor] | None = None,
    config: Config | Skinny | None = None,
) -> dict[str, torch.Tensor]:
    """The results of `program` over a · b, in the order of its stores. `into` names existing tensors to write to."""
    if runs_in_triton(a):
        from tiltyard_kernels.gemm.launch import launch  # noqa: PLC0415  # only where Triton is there

        return launch(
            program,
            a,
            b,
            low_rank=low_rank,
            scales=scales,
            out_dtype=out_dtype,
            operands=operands,
            into=into,
            config=config,
        )
    results = empty_results(program, a, b, out_dtype)
    results |= dict(into or {})
    acc = reference_product(a, b, low_rank, scales)
    for name, value in evaluate(program, acc, operands).items():
        results[name].copy_(value)
    return results


def reference_product(
    a: torch.Tensor,
    b: torch.Tensor,
    low_rank: tuple[torch.Tensor, torch.Tensor] | None = None,
    scales: tuple[torch.Tensor, torch.Tensor | None] | None = None,
) -> torch.Tensor:
    """a · b, scaled by rows and columns, plus P · Q, as the epilogue sees it: accumulated in float32, float64 for
    float64 inputs."""
    is_narrow = a.device.type == "cuda" and a.dtype in (torch.float16, torch.bfloat16)
    wide = torch.float64 if a.dtype == torch.float64 else torch.float32
    acc = torch.mm(a, b).float() if is_narrow else a.to(wide) @ b.to(wide)
    if scales is not None:
        acc = acc * scales[0][:, None]
        acc = acc if scales[1] is None else acc * scales[1]
    if low_rank is None:
        return acc
    p, q = low_rank
    return acc + (torch.mm(p, q).float() if is_narrow else p.to(wide) @ q.to(wide))
