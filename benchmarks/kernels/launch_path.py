"""What one product costs the host, in microseconds, without a GPU: all of the Python path, and no launch at its end.

    PYTHONPATH=kernels python benchmarks/kernels/launch_path.py [--out FILE]

Kernels are compiled for compute capability 9.0; then the driver's launch is replaced by nothing, and tensors lie on
the CPU. So the times have checks, plan, allocation of results, descriptors' objects and Triton's own Python, but not
the encoding of descriptors, nor the launch itself. On a GPU `run_all.py --part launch` measures the whole.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import CompiledKernel
from triton.runtime import driver

from tiltyard_kernels.blocks import programs
from tiltyard_kernels.gemm import LowRank, execute, gemm, making, matmul, operands, ops


class Target:
    """As much of a driver as compiling and a launch's Python ask for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int = 0) -> int:
        return 0


def launch_nothing() -> None:
    """Let compiled kernels be launched without a driver, to no effect."""

    def init_handles(kernel: Any) -> None:
        kernel.module = kernel.function = 0
        kernel._run = lambda *_arguments: None

    CompiledKernel._init_handles = init_handles
    driver.set_active(Target())
    making.gpu_of = operands.gpu_of = lambda _device: ("NVIDIA H200", (9, 0))
    making.multiprocessors = lambda _device: 132
    execute.runs_in_triton = ops.runs_in_triton = lambda _x: True


def microseconds(call: Callable[[], object], repetitions: int = 400) -> float:
    for _ in range(20):
        call()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    launch_nothing()
    torch.set_num_threads(1)
    make = partial(torch.randn, dtype=torch.bfloat16)
    a, b, rstd = make(128, 128), make(128, 128), torch.ones(128)
    pair = LowRank(make(128, 16), make(16, 128))
    calls: dict[str, Callable[[], object]] = {
        "one product": lambda: matmul(a, b),
        "one product, few rows": lambda: matmul(a[:4], b.t()),
        "with an adapter": lambda: matmul(a, b.t(), low_rank=pair),
        "swiglu program": lambda: gemm(a, b.t(), programs.swiglu, rstd=rstd),
        "residual program with a row sum": lambda: gemm(a, b.t(), programs.residual_norm, residual=a, eps=1e-6),
        "through the torch operator": lambda: ops._store.operator(a, b, None, None, None),
        "empty tensor, for scale": lambda: torch.empty((128, 128), dtype=torch.bfloat16),
    }
    with torch.no_grad():
        times = {name: round(microseconds(call), 1) for name, call in calls.items()}
    for name, time_us in times.items():
        sys.stdout.write(f"{name:32} {time_us:7.1f} us\n")
    if options.out is not None:
        versions = {"torch": torch.__version__, "triton": triton.__version__}
        options.out.write_text(json.dumps({"host_us": times, **versions}, indent=1) + "\n")


if __name__ == "__main__":
    main()
