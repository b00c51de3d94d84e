"""A linear with a quantised weight, forward and for its input's gradient; which way, by the number of rows.

rows                        how
up to IN_LOOP_ROWS_MAX      the weight is read as it is and widened block by block (`device.skinny`), if its codes are
                            numbers; looked-up ones (NF4, MXFP4) are not
above, and looked-up codes  it is widened once into a scratch matrix, and a dense product runs
above, "dynamic" fp8        x is quantised too, and fp8 multiplies fp8 (`quantise.fp8`)

What kernels cannot read (groups that do not fit, e4m3 before compute capability 8.9) plain PyTorch widens.

In-loop widening repeats for every block of rows; the scratch costs one pass over the weight. The limit is where the two
met on an H200 (14336 × 4096): of 128 rows the loop took 77 µs and the scratch 83, of 256 rows 146 and 105. For NF4 the
loop took 461 µs of 32 rows and the scratch 94.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tiltyard_kernels.gemm.execute import runs_in_triton
from tiltyard_kernels.gemm.operands import gpu_of
from tiltyard_kernels.gemm.ops import LowRank, _store, check_low_rank, matmul, runs_directly
from tiltyard_kernels.gemm.packed import PackedWeight
from tiltyard_kernels.quantise import formats
from tiltyard_kernels.quantise.fp8 import forward_product, gradient_product, multiplies_fp8
from tiltyard_kernels.quantise.tensor import QuantisedTensor

IN_LOOP_ROWS_MAX = 128


def quantised_linear(x: torch.Tensor, weight: QuantisedTensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x (…, K) · weightᵀ + bias, differentiable in x and bias. Under autocast it runs in its type.

    Raises ValueError if x has another width than K or lies on another device.
    """
    if x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"x {tuple(x.shape)} does not fit the quantised weight {tuple(weight.shape)}: "
            f"it must have {weight.shape[1]} features"
        )
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    rows = x.reshape(-1, x.shape[-1])
    y: torch.Tensor = _QuantisedLinear.apply(rows, weight)  # type: ignore[no-untyped-call]
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias.to(y.dtype)


class _QuantisedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: QuantisedTensor) -> torch.Tensor:
        ctx.weight = weight
        return packed_matmul(x, weight.packed())

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None]:
        return packed_gradient(dy, ctx.weight.packed()), None


def dequantised(weight: QuantisedTensor, dtype: torch.dtype) -> torch.Tensor:
    """The weight (N, K) widened."""
    if runs_directly([weight.values]):
        return _dequantise(*_flat(weight.packed()), dtype)
    made: torch.Tensor = torch.ops.tiltyard.dequantise(*_flat(weight.packed()), dtype)
    return made


def dequantised_together(weights: Sequence[QuantisedTensor], dtype: torch.dtype, *, is_interleaved: bool) -> Any:
    """Several weights (N, K) of one K widened into one matrix, end to end or row by row in turn."""
    rows, columns = sum(weight.shape[0] for weight in weights), weights[0].shape[1]
    out = torch.empty(rows, columns, dtype=dtype, device=weights[0].device)
    start = 0
    for index, weight in enumerate(weights):
        part = out[index :: len(weights)] if is_interleaved else out[start : start + weight.shape[0]]
        _dequantise(*_flat(weight.packed()), dtype, out=part)
        start += weight.shape[0]
    return out


def packed_matmul(x: torch.Tensor, packed: PackedWeight, low_rank: LowRank | None = None) -> torch.Tensor:
    """x (M, K) · packedᵀ, plus P · Q if given, in x's type.

    Raises ValueError that names the operand whose shape, type or device does not fit: the kernels read what they are
    pointed at.
    """
    _check(x, packed, low_rank)
    p, q = (None, None) if low_rank is None else (low_rank.p, low_rank.q)
    if runs_directly([x, packed.values] if low_rank is None else [x, packed.values, low_rank.p, low_rank.q]):
        return _packed_matmul(x, *_flat(packed), p, q)
    made: torch.Tensor = torch.ops.tiltyard.packed_matmul(x, *_flat(packed), p, q)
    return made


def packed_gradient(dy: torch.Tensor, packed: PackedWeight, low_rank: LowRank | None = None) -> torch.Tensor:
    """dy (M, N) · packed, plus P · Q if given, in dy's type: the gradient of x in `packed_matmul`."""
    p, q = (None, None) if low_rank is None else (low_rank.p, low_rank.q)
    if runs_directly([dy, packed.values] if low_rank is None else [dy, packed.values, low_rank.p, low_rank.q]):
        return _packed_gradient(dy, *_flat(packed), p, q)
    made: torch.Tensor = torch.ops.tiltyard.packed_gradient(dy, *_flat(packed), p, q)
    return made


def multiplies_by_fp8(x: torch.Tensor, packed: PackedWeight) -> bool:
    """Whether x (M, …) is quantised for its product with `packed`, or the gradient of one."""
    is_many = x.shape[0] > IN_LOOP_ROWS_MAX and x.dtype == torch.bfloat16
    return packed.is_dynamic and is_many and multiplies_fp8(x.device)


def _check(x: torch.Tensor, packed: PackedWeight, low_rank: LowRank | None) -> None:
    n, k = packed.shape
    if x.dim() != 2 or x.shape[1] != k:
        raise ValueError(f"x {tuple(x.shape)} does not fit the quantised weight {(n, k)}: it must have {k} features")
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}; a quantised weight multiplies floating-point numbers")
    if x.device != packed.values.device:
        raise ValueError(f"x is on {x.device} and the quantised weight on {packed.values.device}: move one of them")
    if low_rank is not None:
        check_low_rank(low_rank, x, n)


_SCHEMA = (
    "Tensor values, Tensor scale, int n, int k, str format, str kind, int group, Tensor? zero, Tensor? code, "
    "Tensor? second, Tensor? code2, float offset"
)


def _flat(packed: PackedWeight) -> tuple[Any, ...]:
    values, scale, (n, k), *others = packed
    return (values, scale, n, k, *others)


def _packed(flat: tuple[Any, ...]) -> PackedWeight:
    values, scale, n, k, *others = flat
    return PackedWeight(values, scale, (n, k), *others)


_LIBRARY: Any = torch.library.Library("tiltyard", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"dequantise({_SCHEMA}, ScalarType dtype) -> Tensor")
_LIBRARY.define(f"packed_matmul(Tensor x, {_SCHEMA}, Tensor? p, Tensor? q) -> Tensor")
_LIBRARY.define(f"packed_gradient(Tensor dy, {_SCHEMA}, Tensor? p, Tensor? q) -> Tensor")


def _dequantise(*arguments: Any, out: torch.Tensor | None = None) -> torch.Tensor:
    """The weight widened, into `out` (N, K; its rows contiguous) if given."""
    packed, dtype = _packed(arguments[:-1]), arguments[-1]
    if not (_in_triton(packed, packed.values.device, dtype) and packed.values.numel()):
        widened = formats.widened(packed).to(dtype)
        return widened if out is None else out.copy_(widened)
    from tiltyard_kernels.device.dequantise import dequantise_kernel  # noqa: PLC0415  # only where Triton is there

    n, k = packed.shape
    out = torch.empty(n, k, dtype=dtype, device=packed.values.device) if out is None else out
    block_k = min(packed.group or 128, 128)
    block_n = 32
    dequantise_kernel[(-(-k // block_k), -(-n // block_n))](
        out,
        out.stride(0),
        packed.values,
        packed.scale,
        packed.zero,
        packed.second,
        packed.code,
        packed.code2,
        packed.offset,
        n,
        k,
        max(1, k // packed.group) if packed.group else 1,
        k // 2,
        packed.format,
        packed.kind,
        max(1, packed.group),
        packed.zero is not None,
        block_n,
        block_k,
        n % block_n == 0 and k % block_k == 0,
        num_warps=4,
    )
    return out


def _packed_matmul(x: torch.Tensor, *arguments: Any) -> torch.Tensor:
    packed = _packed(arguments[:-2])
    p, q = arguments[-2:]
    pair = None if p is None or q is None else (p, q)
    low_rank = None if pair is None else LowRank(*pair)
    if multiplies_by_fp8(x, packed):
        return forward_product(x, [(packed.values, packed.scale)], _store, low_rank)["out"]
    if x.shape[0] <= IN_LOOP_ROWS_MAX and packed.fits_the_loop and _in_triton(packed, x.device, x.dtype):
        from tiltyard_kernels.gemm.launch import launch  # noqa: PLC0415  # only where Triton is there

        return launch(_store, x, packed, low_rank=pair, out_dtype=None, operands={})["out"]
    weight = _dequantise(*arguments[:-2], x.dtype)
    return matmul(x, weight.t(), low_rank=low_rank)


def _packed_gradient(dy: torch.Tensor, *arguments: Any) -> torch.Tensor:
    packed = _packed(arguments[:-2])
    p, q = arguments[-2:]
    low_rank = None if p is None or q is None else LowRank(p, q)
    if multiplies_by_fp8(dy, packed):
        return gradient_product(dy, [(packed.values, packed.scale)], _store, low_rank)["out"]
    return matmul(dy, _dequantise(*arguments[:-2], dy.dtype), low_rank=low_rank)


def _in_triton(packed: PackedWeight, device: torch.device, dtype: torch.dtype) -> bool:
    is_readable = packed.fits_kernels and (packed.values.dtype != formats.FP8 or _reads_fp8(device))
    return is_readable and dtype != torch.float64 and runs_in_triton(torch.empty(0, dtype=dtype, device=device))


def _reads_fp8(device: torch.device) -> bool:
    """Triton compiles e4m3 from compute capability 8.9 on; its interpreter reads it wrong without saying so."""
    gpu = gpu_of(device)
    return gpu is not None and gpu[1] >= (8, 9)


_LIBRARY.impl("dequantise", _dequantise, "CompositeExplicitAutograd")
_LIBRARY.impl("packed_matmul", _packed_matmul, "CompositeExplicitAutograd")
_LIBRARY.impl("packed_gradient", _packed_gradient, "CompositeExplicitAutograd")


@torch.library.register_fake("tiltyard::dequantise", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(*arguments: Any) -> torch.Tensor:
    values, n, k = arguments[0], arguments[2], arguments[3]
    made: torch.Tensor = values.new_empty(n, k, dtype=arguments[-1])
    return made


@torch.library.register_fake("tiltyard::packed_matmul", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(x: torch.Tensor, *arguments: Any) -> torch.Tensor:
    return x.new_empty(x.shape[0], arguments[2])


@torch.library.register_fake("tiltyard::packed_gradient", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(dy: torch.Tensor, *arguments: Any) -> torch.Tensor:
    return dy.new_empty(dy.shape[0], arguments[3])
