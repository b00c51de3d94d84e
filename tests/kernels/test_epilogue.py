"""The language: every primitive against its reference in the kernel, and every mistake found at definition."""

# ruff: noqa: ARG005, N803  # parameters that are not used, or badly named, are the mistakes

from collections.abc import Callable, Mapping

import pytest
import torch
from kernel_errors import assert_close

from tiltyard_kernels import epilogue as ep
from tiltyard_kernels.gemm import gemm

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]


@ep.epilogue(
    loads={
        "residual": ep.tile(),
        "table": ep.periodic_tile(8, width=0.5),
        "bias": ep.per_column(),
        "gain": ep.per_row(),
        "label": ep.per_row(integer=True),
        "alpha": ep.scalar(),
        "eps": ep.scalar(),
    },
    stores={
        "out": ep.store(),
        "half": ep.store(width=0.5, dtype=torch.float32),
        "twice": ep.store(width=2),
        "norms": ep.store(width=1 / 8, dtype=torch.float32),
        "squares": ep.row_sum(),
        "rstd": ep.row_rstd("eps"),
        "lse": ep.row_logsumexp(),
        "largest": ep.row_max(),
        "columns": ep.column_sum(),
        "picked": ep.row_sum(),
        "magnitude": ep.amax(),
    },
)
def everything(  # noqa: PLR0917  # as many operands as there are kinds
    acc: ep.Value,
    residual: ep.Value,
    table: ep.Value,
    bias: ep.Value,
    gain: ep.Value,
    label: ep.Value,
    alpha: ep.Value,
    eps: ep.Value,  # for the reduction
) -> Mapping[str, ep.Value]:
    y = acc * gain + bias + alpha * residual
    even, odd = ep.pairs(y)
    return {
        "out": y,
        "half": ep.silu(even) * odd + table,
        "twice": ep.interleave(y, -y),
        "norms": ep.group_sum(y * y, 8),
        "squares": y * y,
        "rstd": y * y,
        "lse": y,
        "largest": y,
        "columns": y / ep.group_broadcast(ep.sqrt(ep.group_sum(y * y, 8) + 1.0), 8),
        "picked": ep.where(ep.column_index(acc) == label, y, 0.0),
        "magnitude": y,
    }


@pytest.mark.parametrize("shape", [(64, 128, 32), (199, 752, 40), (5, 16, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_operand_and_result(
    shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> None:
    m, n, k = shape
    a, w = torch.randn(m, k, device=device).to(dtype), torch.randn(n, k, device=device).to(dtype)
    operands = {
        "residual": torch.randn(m, n, device=device).to(dtype),
        "table": torch.randn(m, 8, device=device),
        "bias": torch.randn(n, device=device),
        "gain": torch.randn(m, device=device),
        "label": torch.randint(0, n, (m,), device=device),
        "alpha": 0.25,
        "eps": 1e-3,
    }
    results = gemm(a, w.t(), everything, **operands)  # type: ignore[arg-type]
    truth = ep.evaluate(everything, a.double() @ w.double().t(), operands)  # type: ignore[arg-type]
    for name, value in results.items():
        assert_close(value, truth[name])


UNARY: dict[str, Callable[[ep.Value], ep.Value]] = {
    "exp": ep.exp,
    "log": lambda x: ep.log(ep.absolute(x) + 1.0),
    "sqrt": lambda x: ep.sqrt(ep.absolute(x)),
    "rsqrt": lambda x: ep.rsqrt(ep.absolute(x) + 1.0),
    "sigmoid": ep.sigmoid,
    "tanh": ep.tanh,
    "erf": ep.erf,
    "relu": ep.relu,
    "silu": ep.silu,
    "gelu_tanh": ep.gelu_tanh,
    "minimum": lambda x: ep.minimum(x, 0.5),
    "cast": lambda x: ep.cast(x, torch.float16) * 3.0,
    "negation": lambda x: 1.0 - (-x) / 2.0,
    "chosen": lambda x: ep.where((x > 0.0) & (x <= 1.0) | (x == 2.0), x, 2.0 * x),
}


@pytest.mark.parametrize("name", UNARY)
def test_primitives(name: str, device: torch.device) -> None:
    @ep.epilogue(stores={"out": ep.store()})
    def program(acc: ep.Value) -> Mapping[str, ep.Value]:
        return {"out": UNARY[name](acc)}

    a, b = torch.randn(20, 16, device=device), torch.randn(16, 40, device=device)
    truth = ep.evaluate(program, a.double() @ b.double(), {})["out"]
    value = gemm(a, b, program)["out"]
    # A cast rounds: a number on the edge may fall to either side.
    assert (value.double() - truth).norm() <= (1e-3 if name == "cast" else 5e-6) * truth.norm()


def test_rows_beyond_the_last_do_not_count(device: torch.device) -> None:
    @ep.epilogue(stores={"total": ep.column_sum(), "lse": ep.row_logsumexp(), "sum": ep.row_sum()})
    def program(acc: ep.Value) -> Mapping[str, ep.Value]:
        return {"total": acc + 1.0, "lse": acc * 0.0, "sum": acc * 0.0 + 1.0}

    results = gemm(torch.zeros(33, 4, device=device), torch.zeros(4, 67, device=device), program)
    assert torch.equal(results["total"], torch.full((67,), 33.0, device=device))
    assert torch.equal(results["sum"], torch.full((33,), 67.0, device=device))
    torch.testing.assert_close(results["lse"], torch.full((33,), 67.0, device=device).log())


@ep.epilogue(loads={"bias": ep.per_column()}, stores={"sum": ep.store(), "squares": ep.row_sum()})
def biased(acc: ep.Value, bias: ep.Value) -> Mapping[str, ep.Value]:
    y = acc + bias
    return {"sum": y, "squares": y * y}


@ep.epilogue(loads={"gain": ep.per_row()}, stores={"out": ep.store()})
def gained(acc: ep.Value, gain: ep.Value) -> Mapping[str, ep.Value]:
    return {"out": ep.relu(acc) * gain}


def test_programs_compose(device: torch.device) -> None:
    both = biased.then(gained, through="sum")
    assert list(both.stores) == ["squares", "out"]
    a, b = torch.randn(20, 16, device=device), torch.randn(16, 40, device=device)
    bias, gain = torch.randn(40, device=device), torch.randn(20, device=device)
    results = gemm(a, b, both, bias=bias, gain=gain)
    y = a.double() @ b.double() + bias
    assert_close(results["out"], torch.relu(y) * gain[:, None])
    assert_close(results["squares"], (y * y).sum(1))


def define(
    function: Callable[..., object], loads: dict[str, ep.Load] | None = None, stores: dict[str, ep.Store] | None = None
) -> ep.Epilogue:
    return ep.epilogue(loads=loads, stores=stores or {"out": ep.store()})(function)  # type: ignore[arg-type]


MISTAKES = [
    (lambda: define(lambda acc, bias: {"out": acc + bias}), "operand 'bias', which loads does not declare"),
    (lambda: define(lambda acc: {"out": acc}, {"bias": ep.tile()}), "declares the operand 'bias' but has no parameter"),
    (lambda: define(lambda acc, bias: {"out": acc}, {"bias": ep.tile()}), "never uses the operand 'bias'"),
    (lambda: define(lambda x: {"out": x}), "first parameter .* must be acc"),
    (lambda: define(lambda acc: acc), "must return a dict"),
    (lambda: define(lambda acc: {}), "does not return the declared result 'out'"),
    (lambda: define(lambda acc: {"out": acc, "more": acc}), "returns 'more', which stores does not declare"),
    (lambda: define(lambda acc: {"out": 1.0}), "result 'out' is a float"),
    (lambda: define(lambda acc: {"out": acc > 0.0}), "result 'out' is .*a bool"),
    (lambda: define(lambda acc: {"out": ep.pairs(acc)[0]}), r"declared with the width 1, but pairs\(acc\)\[0\]"),
    (
        lambda: define(lambda acc: {"out": acc + ep.pairs(acc)[0]}),
        r"pairs\(acc\)\[0\] has half the accumulator's columns",
    ),
    (
        lambda: define(lambda acc, half: {"out": acc * half}, {"half": ep.tile(width=0.5)}),
        "acc has as many columns as the accumulator but half has half",
    ),
    (lambda: define(lambda acc: {"out": acc if acc > 0.0 else -acc}), r"\(acc > 0.0\) has no truth value"),
    (lambda: define(lambda acc: {"out": acc.exp()}), "acc has no 'exp'"),
    (lambda: define(lambda acc: {"out": acc + torch.ones(3)}), "acc cannot combine with a Tensor"),
    (lambda: define(lambda acc: {"out": acc * (acc > 0.0)}), "a condition cannot be calculated with"),
    (lambda: define(lambda acc: {"out": ep.where(acc, acc, 0.0)}), "acc is no condition"),
    (lambda: define(lambda acc: {"out": ep.group_sum(acc, 3)}), "a power of two"),
    (lambda: define(lambda acc: {"out": acc * float("nan")}), "is not finite"),
    (lambda: define(lambda acc, M: {"out": acc + M}, {"M": ep.tile()}), "'M' cannot name an operand"),
    (
        lambda: define(lambda acc, out: {"out": acc + out}, {"out": ep.tile()}),
        "'out' is an operand and a result; give the result a name of its own",
    ),
    (lambda: define(lambda acc, *more: {"out": acc}), r"instead of taking \*more"),
    (lambda: biased.then(gained, through="out"), "biased has no result 'out' for gained"),
    (lambda: biased.then(gained, through="squares"), "'squares': it is a reduction"),
    (
        lambda: ep.epilogue(stores={"out": ep.row_rstd("eps")})(lambda acc: {"out": acc * acc}),
        "the result 'out' needs 'eps' declared in loads as a scalar",
    ),
    (lambda: biased.then(biased, through="sum"), "both have the operand 'bias'"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_mistakes_are_named_at_definition(mistake: Callable[[], object], message: str) -> None:
    with pytest.raises(ep.EpilogueError, match=message):
        mistake()


@pytest.mark.parametrize(
    ("operands", "message"),
    [
        ({}, "biased needs the operand 'bias'"),
        ({"bias": torch.ones(3)}, r"'bias' has the shape \(3,\), but must have \(6,\)"),
        ({"bias": 1.0}, "'bias' must be a tensor"),
        ({"bias": torch.ones(6, dtype=torch.int64)}, "must hold floating-point numbers"),
        ({"bias": torch.ones(6), "gain": 1.0}, "has no operand 'gain'"),
    ],
)
def test_bad_operands_are_named_at_launch(operands: dict[str, torch.Tensor | float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gemm(torch.ones(4, 5), torch.ones(5, 6), biased, **operands)


def test_columns_that_groups_do_not_divide_are_refused() -> None:
    @ep.epilogue(stores={"out": ep.store(width=0.5)})
    def halved(acc: ep.Value) -> Mapping[str, ep.Value]:
        return {"out": ep.pairs(acc)[0]}

    with pytest.raises(ValueError, match="groups of 2 columns, which do not divide the 7 columns"):
        gemm(torch.ones(4, 5), torch.ones(5, 7), halved)
