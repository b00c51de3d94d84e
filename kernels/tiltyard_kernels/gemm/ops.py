"""The public functions: check what was passed, then run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tiltyard_kernels.epilogue import Epilogue, Value, epilogue, store
from tiltyard_kernels.gemm.config import Config, Skinny
from tiltyard_kernels.gemm.execute import execute, runs_in_triton

RANK_MAX = 512
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e4m3fn)


@dataclass(frozen=True)
class LowRank:
    """A product P · Q joined to a · b in the accumulator: an adapter's part. p (M, r), q (r, N), of a's dtype (bfloat16
    beside fp8). It costs least where q lies as b does: transposed if that is.

    Fold an adapter's scale into `p`, which is the smaller by far.
    """

    p: torch.Tensor
    q: torch.Tensor


@dataclass(frozen=True)
class Scales:
    """What quantised operands stand for: row m of a times `rows[m]`, column n of b times `columns[n]`.

    rows (M,) and columns (N,), float32 and contiguous. P · Q, which joins after them, is not scaled.
    """

    rows: torch.Tensor
    columns: torch.Tensor | None = None


@epilogue(stores={"out": store()})
def _store(acc: Value) -> Mapping[str, Value]:
    return {"out": acc}


def matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    low_rank: LowRank | None = None,
    scales: Scales | None = None,
    out_dtype: torch.dtype | None = None,
    config: Config | Skinny | None = None,
) -> torch.Tensor:
    """a (M, K) · b (K, N), plus P · Q if given; accumulated in float32. Transposed views are read as they lie."""
    return gemm(a, b, _store, low_rank=low_rank, scales=scales, out_dtype=out_dtype, config=config)["out"]


def gemm(
    a: torch.Tensor,
    b: torch.Tensor,
    program: Epilogue,
    *,
    low_rank: LowRank | None = None,
    scales: Scales | None = None,
    out_dtype: torch.dtype | None = None,
    into: Mapping[str, torch.Tensor] | None = None,
    config: Config | Skinny | None = None,
    **operands: torch.Tensor | float,
) -> dict[str, torch.Tensor]:
    """Run `program` over a · b, and return its results by name.

    a (M, K) and b (K, N) share a dtype: bfloat16, float16, float32 (exact, slow), float64 (CPU only) or float8_e4m3fn.
    Either may be a transposed view: `gemm(x, w.t(), …)` is a linear layer, `gemm(dy, w, …)` its dX and
    `gemm(dy.t(), x, …)` its dW. `scales` multiply a's rows and b's columns, for quantised ones. `out_dtype` is the type
    of tile results that declare none; bfloat16 for fp8. `into` gives existing tensors for tile results; one may be an
    operand as well, which accumulates into it. `config` overrides the table's choice. Neither `into` nor `config` goes
    through the torch operator, so not under torch.compile or for gradients.

    Raises ValueError that names the operand whose shape, dtype or device does not fit.
    """
    pair = None if low_rank is None else (low_rank.p, low_rank.q)
    factors = None if scales is None else (scales.rows, scales.columns)
    values = [a, b, *operands.values(), *(pair or ()), *(into or {}).values()]
    if runs_directly(values):
        from tiltyard_kernels.gemm import launch  # noqa: PLC0415  # only where Triton is there

        key = launch.plan_key(program, a, b, pair, factors, out_dtype, operands, into, config)
        plan = launch.find_plan(key)
        if plan is None:
            _check(program, a, b, low_rank, scales, operands, into)
            plan = launch.make_plan(key, program, a, b, pair, factors, out_dtype, operands, into, config)
        return launch.run_plan(plan, a, b, pair, factors, operands, into)
    _check(program, a, b, low_rank, scales, operands, into)
    if into is not None or config is not None:
        if _is_differentiated(values):
            raise ValueError(
                f"{program.name}: no gradient goes through a product with `into` or `config`, but an operand requires "
                "one: call it under torch.no_grad(), or leave `into` and `config` out"
            )
        return execute(
            program,
            a,
            b,
            low_rank=pair,
            scales=factors,
            out_dtype=out_dtype,
            operands=operands,
            into=into,
            config=config,
        )
    p, q = pair or (None, None)
    row_scale, column_scale = factors or (None, None)
    ordered = [operands[name] for name in program.loads]
    made = program.operator(a, b, p, q, row_scale, column_scale, out_dtype, *ordered)
    return dict(zip(program.stores, made, strict=True))


def runs_directly(values: Sequence[torch.Tensor | float]) -> bool:
    """Whether a launch need not go through the torch operator: nobody traces, watches or differentiates it.

    `values` are all that it reads or writes, the left operand first. What was checked once need not be checked again:
    a plan's key has all that the checks look at.
    """
    left = values[0]
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    if any(isinstance(value, torch.Tensor) and type(value) not in _PLAIN for value in values):
        return False
    return isinstance(left, torch.Tensor) and runs_in_triton(left) and not _is_differentiated(values)


def _is_differentiated(values: Sequence[torch.Tensor | float]) -> bool:
    if not torch.is_grad_enabled():
        return False
    return any(isinstance(value, torch.Tensor) and value.requires_grad for value in values)


def _check(  # noqa: PLR0917  # gemm's arguments
    program: Epilogue,
    a: torch.Tensor,
    b: torch.Tensor,
    low_rank: LowRank | None,
    scales: Scales | None,
    operands: Mapping[str, torch.Tensor | float],
    into: Mapping[str, torch.Tensor] | None,
) -> None:
    _check_product(a, b)
    _check_operands(program, a, b, operands)
    if low_rank is not None:
        check_low_rank(low_rank, a, b.shape[1])
    if scales is not None:
        _check_scales(scales, a, b)
    if into is not None:
        _check_into(program, a, b, into)


def _check_product(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"a {tuple(a.shape)} and b {tuple(b.shape)} do not multiply: they must be (M, K) and (K, N)")
    if a.dtype != b.dtype or a.dtype not in _DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise ValueError(f"a is {a.dtype} and b is {b.dtype}: both must be the same one of {known}")
    if a.device != b.device:
        raise ValueError(f"a is on {a.device} and b on {b.device}: move one of them")


def _check_operands(
    program: Epilogue, a: torch.Tensor, b: torch.Tensor, operands: Mapping[str, torch.Tensor | float]
) -> None:
    m, n = a.shape[0], b.shape[1]
    if missing := [name for name in program.loads if name not in operands]:
        raise ValueError(f"{program.name} needs the operand {missing[0]!r}")
    if extra := [name for name in operands if name not in program.loads]:
        raise ValueError(f"{program.name} has no operand {extra[0]!r}; it has {', '.join(program.loads) or 'none'}")
    if n % program.granularity:
        raise ValueError(
            f"{program.name} works on groups of {program.granularity} columns, which do not divide the {n} columns of b"
        )
    for name, load in program.loads.items():
        value = operands[name]
        if load.extent == "scalar":
            if isinstance(value, torch.Tensor):
                raise ValueError(f"{program.name}: {name!r} is a Python number, not a tensor")
            continue
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{program.name}: {name!r} must be a tensor, not a {type(value).__name__}")
        columns = n * load.width.numerator // load.width.denominator
        if load.period and columns % load.period:
            raise ValueError(
                f"{program.name}: {name!r} repeats every {load.period} columns, which do not divide {columns}"
            )
        columns = load.period or columns
        expected = {"tile": (m, columns), "row": (m,), "column": (columns,)}[load.extent]
        if tuple(value.shape) != expected:
            raise ValueError(f"{program.name}: {name!r} has the shape {tuple(value.shape)}, but must have {expected}")
        if value.device != a.device:
            raise ValueError(f"{program.name}: {name!r} is on {value.device}, but a on {a.device}")
        if load.integer == value.is_floating_point():
            wanted = "integers" if load.integer else "floating-point numbers"
            raise ValueError(f"{program.name}: {name!r} is {value.dtype}, but must hold {wanted}")


def check_low_rank(low_rank: LowRank, a: torch.Tensor, n: int) -> None:
    """Raise ValueError unless P · Q can join a product of `a` (M, K) with `n` columns."""
    p, q = low_rank.p, low_rank.q
    if p.dim() != 2 or q.dim() != 2 or (p.shape[0], p.shape[1], q.shape[1]) != (a.shape[0], q.shape[0], n):
        raise ValueError(f"low_rank: p {tuple(p.shape)} and q {tuple(q.shape)} must be ({a.shape[0]}, r) and (r, {n})")
    if p.device != a.device or q.device != a.device:
        raise ValueError(f"low_rank: p is on {p.device} and q on {q.device}, but a on {a.device}; move them there")
    wanted = torch.bfloat16 if a.dtype == torch.float8_e4m3fn else a.dtype
    if p.dtype != wanted or q.dtype != wanted:
        raise ValueError(f"low_rank: p is {p.dtype} and q is {q.dtype}, but a is {a.dtype}; they must be {wanted}")
    if not 1 <= p.shape[1] <= RANK_MAX:
        raise ValueError(f"low_rank: the rank is {p.shape[1]}; it must be from 1 to {RANK_MAX}")


def _check_scales(scales: Scales, a: torch.Tensor, b: torch.Tensor) -> None:
    wide = torch.float64 if a.dtype == torch.float64 else torch.float32
    for name, tensor, size in (("rows", scales.rows, a.shape[0]), ("columns", scales.columns, b.shape[1])):
        if tensor is None:
            continue
        if tuple(tensor.shape) != (size,) or tensor.dtype != wide or not tensor.is_contiguous():
            found = f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise ValueError(f"scales: {name} are {found}; they must be ({size},) of {wide}, contiguous")
        if tensor.device != a.device:
            raise ValueError(f"scales: {name} are on {tensor.device}, but a on {a.device}; move them there")


def _check_into(program: Epilogue, a: torch.Tensor, b: torch.Tensor, into: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in into.items():
        if name not in program.stores or program.stores[name].how != "tile":
            raise ValueError(f"{program.name} has no tile result {name!r} to write into")
        width = program.stores[name].width
        expected = (a.shape[0], b.shape[1] * width.numerator // width.denominator)
        if tuple(tensor.shape) != expected or tensor.device != a.device or (tensor.numel() and tensor.stride(-1) != 1):
            raise ValueError(
                f"{program.name}: the tensor for {name!r} must be {expected} on {a.device}, rows contiguous"
            )
