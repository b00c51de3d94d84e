"""`python -m tiltyard_kernels.gemm.tune`: measure the candidates on this GPU and write its table. Run once per GPU.

For each shape and layout every candidate runs in turn with the others, on random data, in CUDA graphs; the median of
the repetitions decides. A candidate that does not fit the GPU's shared memory is left out. Without `--dtype` both types
are measured; entries of a type that is not measured stay in the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from tiltyard_kernels.gemm.config import TABLES_DIR, Config, as_entry, table_name
from tiltyard_kernels.gemm.ops import matmul

# (M, N, K): square ones, and a Llama-8B's and a 1B's projections at 8192 tokens.
SHAPES = [
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (4096, 4096, 4096),
    (8192, 8192, 8192),
    (8192, 28672, 4096),
    (8192, 4096, 14336),
    (8192, 4096, 4096),
    (16384, 16384, 4096),
]
LAYOUTS = ("nt", "nn", "tn")
# An 8B's projections, forward and dX. The tensor cores take fp8 by rows and by columns in no other layout.
FP8_SHAPES = [
    (8192, 8192, 8192),
    (8192, 6144, 4096),
    (8192, 4096, 4096),
    (8192, 28672, 4096),
    (8192, 4096, 14336),
    (8192, 4096, 6144),
    (8192, 4096, 28672),
    (8192, 14336, 4096),
]
CANDIDATES = [
    Config(128, 256, 64, stages=3, warps=8, group=8, subtiles=2),
    Config(128, 256, 64, stages=3, warps=8, group=16, subtiles=2),
    Config(128, 256, 64, stages=3, warps=8, group=8, subtiles=2, flatten=False),
    Config(128, 256, 64, stages=4, warps=8, group=16, subtiles=4),
    Config(128, 128, 64, stages=5, warps=4, group=8, subtiles=2),
    Config(128, 128, 64, stages=3, warps=4, group=8, subtiles=2, resident=2),
    Config(128, 128, 64, stages=3, warps=4, group=8, subtiles=4, resident=2),
    Config(64, 128, 128, stages=4, warps=4, group=8, subtiles=1, flatten=False),
    Config(128, 64, 64, stages=5, warps=4, group=8, subtiles=1),
]

FP8_CANDIDATES = [
    Config(128, 256, 128, stages=3, warps=8, group=8, subtiles=2),
    Config(128, 256, 128, stages=3, warps=8, group=16, subtiles=4),
    Config(128, 256, 128, stages=4, warps=8, group=8, subtiles=4),
    Config(128, 256, 128, stages=3, warps=8, group=8, subtiles=2, flatten=False),
    Config(128, 256, 64, stages=6, warps=8, group=8, subtiles=2),
    Config(256, 128, 128, stages=3, warps=8, group=8, subtiles=2),
    Config(128, 128, 128, stages=5, warps=4, group=8, subtiles=2),
    Config(128, 128, 128, stages=3, warps=4, group=8, subtiles=2, resident=2),
]
DTYPES = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn}


def operands(shape: tuple[int, int, int], layout: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Random a (M, K) and b (K, N), lying in memory as the layout says."""
    m, n, k = shape
    a = (
        torch.randn(k, m, device="cuda").to(dtype).t()
        if layout[0] == "t"
        else torch.randn(m, k, device="cuda").to(dtype)
    )
    b = (
        torch.randn(n, k, device="cuda").to(dtype).t()
        if layout[1] == "t"
        else torch.randn(k, n, device="cuda").to(dtype)
    )
    return a, b


def captured(call: Callable[[], object], times: int = 1) -> torch.cuda.CUDAGraph:
    """A CUDA graph of `times` calls, so that what is timed is the GPU's work and not the launching of it."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            call()
    return graph


def medians_ms(calls: Sequence[Callable[[], object]], repetitions: int = 15) -> list[float]:
    """The median time of each call in milliseconds; they take turns, so that clocks and heat are the same for all."""
    for call in calls:
        call()
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repetitions):
        for call, collected in zip(calls, times, strict=True):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            call()
            end.record()
            end.synchronize()
            collected.append(start.elapsed_time(end))
    return [statistics.median(collected) for collected in times]


def inner_runs(shape: tuple[int, int, int]) -> int:
    """So many products take about half a millisecond or more at 600 TFLOP/s."""
    m, n, k = shape
    return max(1, int(0.3e12 / (m * n * k * 2)))


def runnable(candidates: Sequence[Config], a: torch.Tensor, b: torch.Tensor) -> list[Config]:
    """The candidates which this GPU can run."""
    from triton.runtime.errors import OutOfResources  # noqa: PLC0415  # only where kernels run

    fitting = []
    for config in candidates:
        try:
            matmul(a, b, config=config)
        except OutOfResources:
            continue
        fitting.append(config)
    return fitting


def library_product(a: torch.Tensor, b: torch.Tensor) -> Callable[[], object]:
    """PyTorch's own product: cuBLAS, or for fp8 its product scaled by rows and columns, to bfloat16."""
    if a.element_size() > 1:
        return partial(torch.mm, a, b)
    rows, columns = torch.ones(a.shape[0], 1, device=a.device), torch.ones(1, b.shape[1], device=a.device)
    return partial(torch._scaled_mm, a, b, scale_a=rows, scale_b=columns, out_dtype=torch.bfloat16, use_fast_accum=True)


def measured(dtype: torch.dtype) -> Iterator[dict[str, object]]:
    """The best candidate of each shape and layout, as entries of the table."""
    is_narrow = dtype.itemsize == 1
    shapes, layouts = (FP8_SHAPES, ("nt",)) if is_narrow else (SHAPES, LAYOUTS)
    for shape in shapes:
        for layout in layouts:
            a, b = operands(shape, layout, dtype)
            fitting = runnable(FP8_CANDIDATES if is_narrow else CANDIDATES, a, b)
            ours = [partial(matmul, a, b, config=config) for config in fitting]
            inner = inner_runs(shape)
            calls: list[Callable[[], object]] = [library_product(a, b), *ours]
            graphs = [captured(call, inner) for call in calls]
            peer, *times = [ms / inner for ms in medians_ms([graph.replay for graph in graphs])]
            best = min(range(len(times)), key=times.__getitem__)
            ratios = " ".join(f"{peer / time:.3f}" for time in times)
            print(f"{shape} {layout}: PyTorch {peer:.3f} ms; ours {ratios} of it; best {fitting[best]}", flush=True)  # noqa: T201
            yield as_entry(shape, layout, dtype.itemsize, fitting[best])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tiltyard_kernels.gemm.tune", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="the table to write; default: beside the shipped ones")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="only this one; may be given again")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("tuning needs a CUDA GPU, and there is none", file=sys.stderr)  # noqa: T201
        return 1
    gpu = torch.cuda.get_device_name()
    path = options.out or TABLES_DIR / table_name(gpu)
    path.parent.mkdir(parents=True, exist_ok=True)
    dtypes = [DTYPES[name] for name in options.dtype or DTYPES]
    kept = json.loads(path.read_text())["entries"] if path.exists() else []
    entries = [entry for entry in kept if entry["itemsize"] not in {dtype.itemsize for dtype in dtypes}]
    for dtype in dtypes:
        for entry in measured(dtype):
            entries.append(entry)
            path.write_text(json.dumps({"gpu": gpu, "torch": torch.__version__, "entries": entries}, indent=1) + "\n")
    print(f"wrote {path}")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
