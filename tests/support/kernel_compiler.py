"""Compile the kernels for a GPU that is not there, and print what they take, as one JSON object by kernel.

    python tests/support/kernel_compiler.py CAPABILITY [NAME …]      (80, 89 or 90; without names, all)

A process of its own, since Triton must be imported without its interpreter. The driver is replaced by one that only
knows its target; launches become compilations, with the configuration which such a GPU would get.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from tiltyard_kernels import attention
from tiltyard_kernels.blocks import adapted, dropout, heads, magnitude, programs
from tiltyard_kernels.epilogue import Epilogue
from tiltyard_kernels.gemm import Config, launch, making, ops
from tiltyard_kernels.gemm.packed import PackedWeight
from tiltyard_kernels.quantise import linear

D, F, TOKENS = 4096, 14336, 8192
FP8_SHAPES = {"h": (TOKENS, D), "gate_up": (2 * F, D), "up": (F, D)}
TAKEN: list[dict[str, int]] = []


class Target:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int = 0) -> int:
        return 0


class Compiler:
    """Stands where a kernel stands; notes what its compilations take."""

    def __init__(self, module: Any, name: str) -> None:
        self.kernel = getattr(module, name)
        setattr(module, name, self)

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def compiled(*arguments: Any, **options: Any) -> None:
            made = self.kernel.warmup(*arguments, grid=grid, **options)
            TAKEN.append({"shared_bytes": made.metadata.shared, **_usage(made.asm["cubin"])})

        return compiled


def _usage(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        listed = subprocess.run(
            [str(tool), "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", listed))
    return {"registers": int(found["REG"]), "spilled_bytes": int(found["STACK"]) + int(found["LOCAL"])}


class Case(NamedTuple):
    """One product: what `launch` takes."""

    program: Epilogue
    a: torch.Tensor
    b: torch.Tensor | PackedWeight
    operands: dict[str, Any]
    low_rank: tuple[torch.Tensor, torch.Tensor] | None = None
    config: Config | None = None
    scales: tuple[torch.Tensor, torch.Tensor | None] | None = None


def matrix(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(rows, columns, dtype=dtype)


def quantised() -> dict[str, PackedWeight]:
    """A down projection in several formats."""
    bytes_, words = torch.uint8, torch.float32
    groups = F // 128
    int4 = PackedWeight(matrix(D, F // 2, bytes_), matrix(D, groups), (D, F), "int4", group=128, zero=matrix(D, groups))
    nf4 = PackedWeight(
        matrix(D, F // 2, bytes_),
        matrix(D, F // 64, bytes_),
        (D, F),
        "lut4",
        "double",
        64,
        code=torch.empty(16),
        second=torch.empty(D * F // 64 // 256),
        code2=torch.empty(256),
    )
    mx = PackedWeight(matrix(D, F, torch.float8_e4m3fn), matrix(D, F // 32, bytes_), (D, F), "wide_grouped", "e8m0", 32)
    int8 = PackedWeight(matrix(D, F, torch.int8), torch.empty(D, dtype=words), (D, F), "wide")
    return {"int4": int4, "nf4": nf4, "mxfp8": mx, "int8": int8}


def cases() -> dict[str, Case]:
    """The products of a Llama-8B's block, and those of few rows."""
    h, row = matrix(TOKENS, D), torch.empty(TOKENS)
    gate_up, down = matrix(2 * F, D), matrix(D, F)
    activated, z = matrix(TOKENS, F), matrix(TOKENS, 2 * F)
    table = torch.empty(TOKENS, 64)
    norm = {"h": h, "dy": h, "rstd": row, "dot": row, "size": float(D)}
    rotary = {"rstd": row, "cos": table, "sin": table, "rotated": 5120.0}
    plain = ops._store
    made = {
        "forward": Case(plain, h, gate_up.t(), {}),
        "dX": Case(plain, z, gate_up, {}),
        "dW": Case(plain, z.t(), h, {}),
        "LoRA": Case(plain, h, gate_up.t(), {}, (matrix(TOKENS, 64), matrix(2 * F, 64).t())),
        "residual_norm": Case(programs.residual_norm, activated, down.t(), {"residual": h, "eps": 1e-6}),
        "swiglu": Case(programs.swiglu, h, gate_up.t(), {"rstd": row}),
        "swiglu_backward": Case(programs.swiglu_backward, h, down, {"z": z}),
        "norm_backward": Case(programs.norm_backward, z, gate_up, norm),
        "norm_backward beside": Case(
            adapted._THROUGH_NORM[True, False][True], z, gate_up, norm | {"gain": torch.empty(D), "extra": h}
        ),
        "DoRA norm": Case(magnitude._squares, matrix(2 * F, 64), matrix(64, D), {"weight": gate_up}),
        "DoRA swiglu": Case(
            magnitude.gated["silu"][True],
            h,
            gate_up.t(),
            {"factor": torch.empty(2 * F)},
            (matrix(TOKENS, 64), matrix(2 * F, 64).t()),
        ),
        "DoRA swiglu_backward": Case(
            magnitude.gated_backward["silu"],
            h,
            down,
            {"z": z, "factor": torch.empty(2 * F)},
        ),
        "rotary": Case(programs.rotary(128), h, matrix(6144, D).t(), rotary),
        "split": Case(
            plain, matrix(256, F), down.t(), {}, (matrix(256, 16), matrix(D, 16).t()), Config(128, 128, split=4)
        ),
    }
    codes = {name: matrix(*shape, torch.float8_e4m3fn) for name, shape in FP8_SHAPES.items()}
    pair = (matrix(TOKENS, 64), matrix(2 * F, 64).t())
    both = (row, torch.empty(2 * F))
    made["fp8 gate and up"] = Case(programs.gated, codes["h"], codes["gate_up"].t(), {}, pair, scales=both)
    pair = (matrix(TOKENS, 64), matrix(F, 64).t())
    made["fp8 swiglu_backward"] = Case(
        programs.swiglu_backward, codes["h"], codes["up"].t(), {"z": z}, pair, scales=(row, None)
    )
    for rows in (1, 16, 256):
        x = matrix(rows, F)
        if rows <= 16:
            made[f"dense {rows}"] = Case(plain, x, down.t(), {})
        for name, weight in quantised().items():
            if weight.fits_the_loop:
                made[f"{name} {rows}"] = Case(plain, x, weight, {})
    return made


def main() -> None:
    capability = int(sys.argv[1])
    from tiltyard_kernels.device import dequantise, mainloop, skinny  # noqa: PLC0415  # after the choice of the driver

    driver.set_active(Target(capability))
    for module, name in (
        (mainloop, "gemm_kernel"),
        (skinny, "skinny_kernel"),
        (skinny, "join_kernel"),
        (dequantise, "dequantise_kernel"),
    ):
        Compiler(module, name)
    making.multiprocessors = lambda _device: 132
    launch.is_hopper = lambda _device: capability >= 90
    making.gpu_of = attention.gpu_of = lambda _device: (
        "NVIDIA H200" if capability == 90 else "",
        divmod(capability, 10),
    )
    from tiltyard_kernels.device import attention as device  # noqa: PLC0415  # as above
    from tiltyard_kernels.device import columns, rows  # noqa: PLC0415  # as above
    from tiltyard_kernels.device import dropout as masks  # noqa: PLC0415  # as above

    for name in (
        "tile_table",
        "attention_forward",
        "attention_delta",
        "attention_key_gradient",
        "attention_query_gradient",
    ):
        Compiler(device, f"{name}_kernel")
    for module, name in (
        (masks, "drop_kernel"),
        (masks, "project_kernel"),
        (masks, "gradient_kernel"),
        (columns, "factor_kernel"),
        (rows, "rstd_kernel"),
        (rows, "head_norm_kernel"),
        (rows, "head_norm_backward_kernel"),
    ):
        Compiler(module, name)
    dropout.multiprocessors = magnitude.multiprocessors = lambda _device: 132
    magnitude.runs_in_triton = attention._in_triton = heads._in_triton = lambda _q: True
    linear._in_triton = lambda *_arguments: True
    chosen = sys.argv[2:]
    report: dict[str, dict[str, int]] = {}
    for name, case in cases().items():
        if chosen and name not in chosen:
            continue
        if capability < 89 and name.startswith(("mxfp8", "fp8")):
            continue
        TAKEN.clear()
        launch.launch(
            case.program,
            case.a,
            case.b,
            low_rank=case.low_rank,
            scales=case.scales,
            out_dtype=None,
            operands=case.operands,
            config=case.config,
        )
        note(report, name)
    for name, weight in quantised().items():
        if chosen and f"widening {name}" not in chosen:
            continue
        if capability >= 89 or weight.values.dtype != torch.float8_e4m3fn:
            TAKEN.clear()
            linear._dequantise(*linear._flat(weight), torch.bfloat16)
            note(report, f"widening {name}")
    report_dropout(report, chosen)
    if not chosen or "head norm" in chosen:
        TAKEN.clear()
        compile_head_norm()
        report |= dict(zip(("head norm", "head norm, backward", "head norm, backward, paired"), TAKEN, strict=True))
    for size in (64, 128, 256):
        if chosen and f"attention {size}" not in chosen:
            continue
        TAKEN.clear()
        compile_attention(size)
        names = ("table", "forward", "delta", "table", "keys' gradient", "table", "queries' gradient")
        found = dict(zip(names, TAKEN, strict=False))
        report |= {f"attention {size}, {name}": taken for name, taken in found.items() if name != "table"}
    sys.stdout.write(json.dumps(report) + "\n")


def report_dropout(report: dict[str, dict[str, int]], chosen: list[str]) -> None:
    for rank in (16, 64, 256, 512):
        if chosen and f"dropout {rank}" not in chosen:
            continue
        TAKEN.clear()
        compile_dropout(rank)
        names = ("mask", "projection", "gradients", "through a factor")
        report |= {f"dropout {rank}, {name}": taken for name, taken in zip(names, TAKEN, strict=True)}


def compile_dropout(rank: int) -> None:
    """What an adapter with dropout takes, forward and backward, and DoRA's pass."""
    x, a, dp, seeds = matrix(TOKENS, D), matrix(rank, D), matrix(TOKENS, rank), torch.empty(1, dtype=torch.int64)
    dropout._drop(x, seeds, 0, 0.1)
    dropout._dropped_projection(x, a, seeds, [rank], [0.1])
    dropout._dropped_gradients(dp, x, a, seeds, [rank], [0.1], True)
    magnitude._through_factor(x, x, torch.empty(D))


def compile_head_norm() -> None:
    """Of Qwen 3's 8B: 32 query heads and 8 of keys and values each, of 128 numbers."""
    z, table = matrix(TOKENS, 6144), torch.empty(TOKENS, 64)
    norm = heads.HeadNorm(torch.empty(2, 128, dtype=torch.bfloat16), 32, 1e-6)
    heads.norm_heads(z, norm, table, table, 40)
    for is_paired in (False, True):
        heads.norm_heads_backward(z, z, norm, table, table, 40, needs_gain=True, is_paired=is_paired)


def compile_attention(size: int) -> None:
    """Forward and backward, eight query heads on two of keys."""
    q, k = (torch.empty(4096, heads, size, dtype=torch.bfloat16) for heads in (8, 2))
    bounds = torch.empty(9, dtype=torch.int32)
    o, lse = attention._forward(q, k, k, bounds, 0.1)
    attention._backward(o, q, k, k, o, lse, bounds, 0.1)


def note(report: dict[str, dict[str, int]], name: str) -> None:
    report |= {name if not index else f"{name}, step {index + 1}": taken for index, taken in enumerate(TAKEN)}


if __name__ == "__main__":
    main()
