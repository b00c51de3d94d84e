"""Products of fp8 activations with fp8 weights, both with a scale for each row, forward and for dX.

Forward, x · Wᵀ with W = s ⊙ w by rows: rows of x are quantised as they come, and the product's rows and columns are
scaled in its epilogue. dX = dy · W has s inside the sum, so that it is folded into dy before that is quantised; what is
left are the rows' scales. For dX the weight's codes are transposed in a scratch matrix at each call: a second copy kept
would double the weight for a few per cent of the product's time.

The recipe (e4m3 everywhere, a scale a row, the largest magnitude of the row on the largest number) is that of
TorchAO's rowwise float8 training (arXiv 2507.16099).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tiltyard_kernels.epilogue import Epilogue
from tiltyard_kernels.gemm.execute import runs_in_triton
from tiltyard_kernels.gemm.operands import gpu_of
from tiltyard_kernels.gemm.ops import LowRank, Scales, gemm, runs_directly
from tiltyard_kernels.quantise.formats import FP8

LIMIT = torch.finfo(FP8).max
# What a weight is to products: its codes (N, K) and its rows' scales (N,).
Coded = tuple[torch.Tensor, torch.Tensor]


def multiplies_fp8(device: torch.device) -> bool:
    """Whether products of fp8 run there: GPUs from compute capability 8.9 on, and CPUs by reference."""
    gpu = gpu_of(device)
    return gpu is None or gpu[1] >= (8, 9)


def forward_product(
    x: torch.Tensor,
    weights: Sequence[Coded],
    program: Epilogue,
    low_rank: LowRank | None = None,
    /,
    *,
    is_interleaved: bool = False,
    out_dtype: torch.dtype | None = None,
    **operands: torch.Tensor | float,
) -> dict[str, torch.Tensor]:
    """`program` over x (M, K) · Wᵀ, x bfloat16, W (N, K) the weights' rows end to end or in turn."""
    codes, rows = quantise_rows(x)
    values, columns = together(weights, is_interleaved=is_interleaved)
    return gemm(
        codes,
        values.t(),
        program,
        low_rank=low_rank,
        scales=Scales(rows, columns),
        out_dtype=out_dtype or x.dtype,
        into=None,
        config=None,
        **operands,
    )


def gradient_product(
    dy: torch.Tensor,
    weights: Sequence[Coded],
    program: Epilogue,
    low_rank: LowRank | None = None,
    /,
    *,
    is_interleaved: bool = False,
    out_dtype: torch.dtype | None = None,
    **operands: torch.Tensor | float,
) -> dict[str, torch.Tensor]:
    """`program` over dy (M, N) · W, dy bfloat16."""
    codes, rows = quantise_rows(dy, _joined_scales(weights, is_interleaved=is_interleaved))
    return gemm(
        codes,
        transposed([values for values, _ in weights], is_interleaved=is_interleaved).t(),
        program,
        low_rank=low_rank,
        scales=Scales(rows),
        out_dtype=out_dtype or dy.dtype,
        into=None,
        config=None,
        **operands,
    )


def quantise_rows(x: torch.Tensor, fold: torch.Tensor | None = None, dtype: torch.dtype = FP8) -> Coded:
    """(codes (M, K), scale (M,) float32) with codes · scale ≈ x ⊙ fold; x (M, K), fold (K,) float32.

    The largest magnitude of a row becomes the largest number of `dtype`.
    """
    limit = torch.finfo(dtype).max
    if not (runs_directly([x]) and x.numel()):
        wide = x.float() if fold is None else x.float() * fold
        scale = (wide.abs().amax(1) / limit).clamp_min(1e-12) if x.shape[1] else wide.new_ones(x.shape[0])
        return (wide / scale[:, None]).to(dtype), scale
    from tiltyard_kernels.device.fp8 import quantise_rows_kernel  # noqa: PLC0415  # only where Triton is there

    x = x if x.stride(1) == 1 else x.contiguous()
    rows, columns = x.shape
    codes = torch.empty(rows, columns, dtype=dtype, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    block = min(8192, 1 << (columns - 1).bit_length())
    quantise_rows_kernel[(rows,)](
        x,
        x.stride(0),
        fold,
        codes,
        scale,
        columns,
        LIMIT=limit,
        HAS_FOLD=fold is not None,
        BLOCK=block,
        num_warps=max(1, min(8, block // 512)),
    )
    return codes, scale


def together(weights: Sequence[Coded], *, is_interleaved: bool) -> Coded:
    """One weight of several's rows, end to end or in turn; of one, itself."""
    if len(weights) == 1:
        return weights[0]
    parts = [values.view(torch.uint8) for values, _ in weights]
    joined = torch.stack(parts, 1).flatten(0, 1) if is_interleaved else torch.cat(parts)
    return joined.view(FP8), _joined_scales(weights, is_interleaved=is_interleaved)


def _joined_scales(weights: Sequence[Coded], *, is_interleaved: bool) -> torch.Tensor:
    scales = [scale for _, scale in weights]
    if len(scales) == 1:
        return scales[0]
    return torch.stack(scales, 1).flatten() if is_interleaved else torch.cat(scales)


def transposed(weights: Sequence[torch.Tensor], *, is_interleaved: bool) -> torch.Tensor:
    """(K, N) of weights (Nᵢ, K) of fp8, rows end to end or, of two, in turn."""
    first = weights[0]
    parts = [weight.view(torch.uint8) for weight in weights]
    in_kernel = runs_in_triton(first.new_empty(0, dtype=torch.float16)) and runs_directly([*parts]) and first.numel()
    if not in_kernel or (is_interleaved and len(parts) > 2) or not all(part.is_contiguous() for part in parts):
        joined = torch.stack(parts, 1).flatten(0, 1) if is_interleaved and len(parts) > 1 else torch.cat(parts)
        return joined.t().contiguous().view(FP8)
    from tiltyard_kernels.device.fp8 import transpose_kernel  # noqa: PLC0415  # only where Triton is there

    columns = first.shape[1]
    out = torch.empty(columns, sum(part.shape[0] for part in parts), dtype=torch.uint8, device=first.device)
    is_paired = is_interleaved and len(parts) > 1
    start = 0
    for part in parts[:1] if is_paired else parts:
        rows = part.shape[0]
        transpose_kernel[(-(-rows // 64), -(-columns // 64))](
            part,
            parts[1] if is_paired else None,
            out[:, start:],
            out.stride(0),
            rows,
            columns,
            PAIRED=is_paired,
            BN=64,
            BK=64,
            num_warps=4,
        )
        start += rows
    return out.view(FP8)
