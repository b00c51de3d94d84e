"""DoRA against its definition in float64: linears, fused parts, and the pass that its gradient takes."""

import pytest
import torch
from kernel_errors import assert_close, assert_gradients_close

from tiltyard_kernels.blocks.adapted import norm_mlp, norm_qkv, residual_linear
from tiltyard_kernels.blocks.adapters import Adapter, Joined, join_adapters
from tiltyard_kernels.blocks.dropout import kept_reference
from tiltyard_kernels.blocks.magnitude import dora_norm, through_factor
from tiltyard_kernels.dora import dora_linear, dora_linear_reference
from tiltyard_kernels.quantise import Fp8Tensor, Int4Tensor, Nf4Tensor, QuantisedTensor

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
SEED = 20261130


class Leaves:
    """Random inputs in a type, the same in float64, and the check of a function of them."""

    def __init__(self, dtype: torch.dtype, device: torch.device, **shapes: tuple[int, ...]) -> None:
        self.used = {
            name: (torch.randn(size, device=device) / size[-1] ** 0.5).to(dtype).requires_grad_()
            for name, size in shapes.items()
        }

    def add(self, name: str, value: torch.Tensor) -> None:
        self.used[name] = value.detach().clone().requires_grad_()

    def check(self, run: object, truth: object) -> None:
        wide = {name: value.detach().double().requires_grad_() for name, value in self.used.items()}
        torch.manual_seed(SEED)
        y = run(**self.used)  # type: ignore[operator]
        expected, peer = truth(**wide), truth(**self.used)  # type: ignore[operator]
        assert_close(y, expected, peer=peer)
        dy = torch.randn_like(expected)
        leaves = list(self.used.values())
        got, peers = (
            torch.autograd.grad(y, leaves, dy.to(y.dtype)),
            torch.autograd.grad(peer, leaves, dy.to(peer.dtype)),
        )
        assert_gradients_close(got, torch.autograd.grad(expected, list(wide.values()), dy), peers)


def whole(x: torch.Tensor, w: torch.Tensor, a: torch.Tensor, b: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """A DoRA product with scale 1, in x's type."""
    return dora_linear_reference(x, w.to(x.dtype), a, b, m, 1.0)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear(dtype: torch.dtype, has_bias: bool, device: torch.device) -> None:
    leaves = Leaves(dtype, device, x=(53, 40), w=(72, 40), a=(8, 40), b=(72, 8), bias=(72,))
    weight = leaves.used.pop("w").detach()
    if not has_bias:
        del leaves.used["bias"]
    leaves.add("m", torch.rand(72, device=device) + 0.5)

    def run(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, m: torch.Tensor, **bias: torch.Tensor) -> torch.Tensor:
        return dora_linear(x, weight, a, b, m, scale=2.0, **bias)  # type: ignore[arg-type]  # bias by name

    def truth(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, m: torch.Tensor, **bias: torch.Tensor) -> torch.Tensor:
        y = dora_linear_reference(x, weight.to(x.dtype), a, b, m.to(x.dtype), 2.0)
        return y + bias["bias"] if bias else y

    leaves.check(run, truth)


@pytest.mark.parametrize("make", [None, Int4Tensor])
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_with_dropout(dtype: torch.dtype, make: type[QuantisedTensor] | None, device: torch.device) -> None:
    leaves = Leaves(dtype, device, x=(37, 64), w=(72, 64), a=(8, 64), b=(72, 8), bias=(72,))
    weight = leaves.used.pop("w").detach()
    base = weight if make is None else make.quantise(weight, group=32)  # type: ignore[attr-defined]
    plain = weight if make is None else base.dequantise()  # type: ignore[attr-defined]
    leaves.add("m", torch.rand(72, device=device) + 0.5)
    torch.manual_seed(SEED)
    seed = int(torch.randint(2**63 - 1, (1,), device=device))
    mask = kept_reference(seed, 37, 64, 0.4).to(device) / 0.6

    def run(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, m: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return dora_linear(x, base, a, b, m, scale=1.0, bias=bias, dropout=0.4)

    def truth(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, m: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return dora_linear_reference(x, plain.to(x.dtype), a, b, m.to(x.dtype), 1.0, x * mask.to(x.dtype)) + bias

    leaves.check(run, truth)


@pytest.mark.parametrize("make", [Int4Tensor, Nf4Tensor, Fp8Tensor])
def test_linear_over_quantised_bases(make: type[QuantisedTensor], device: torch.device) -> None:
    leaves = Leaves(torch.float16, device, x=(21, 64), w=(72, 64), a=(8, 64), b=(72, 8))
    weight = leaves.used.pop("w").detach()
    base = make.quantise(weight, **({} if make is Fp8Tensor else {"group": 32}))  # type: ignore[attr-defined]
    leaves.add("m", torch.rand(72, device=device) + 0.5)

    def run(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        return dora_linear(x, base, a, b, m, scale=1.0)

    leaves.check(run, lambda x, a, b, m: whole(x, base.dequantise(), a, b, m.to(x.dtype)))


def test_magnitudes_of_0_and_rows_of_0(device: torch.device) -> None:
    """A magnitude of 0 has its gradient, and a row of zeros makes zeros, where 0 / 0 would spoil everything."""
    x, weight = torch.randn(9, 24, device=device), torch.randn(16, 24, device=device)
    a, b = torch.randn(3, 24, device=device), torch.randn(16, 3, device=device)
    magnitude = torch.ones(16, device=device)
    magnitude[4] = 0
    weight[7] = b[7] = 0
    m = magnitude.requires_grad_()
    y = dora_linear(x, weight, a, b, m, scale=1.0)
    (dm,) = torch.autograd.grad(y.sum(), m)
    merged = (weight + b @ a).double()
    truth = (x.double() @ merged.t()).sum(0) / merged.norm(dim=1)
    assert not y[:, 4].any()
    assert not y[:, 7].any()
    assert_close(torch.cat((dm[:7], dm[8:])), torch.cat((truth[:7], truth[8:])))
    assert dm[7] == 0


def test_no_rows_and_views(device: torch.device) -> None:
    weight, a, b = (torch.randn(size, device=device) for size in ((16, 24), (3, 24), (16, 3)))
    m = torch.ones(16, device=device, requires_grad=True)
    x = torch.zeros(2, 0, 24, device=device, requires_grad=True)
    y = dora_linear(x, weight, a, b, m, scale=1.0)
    dx, dm = torch.autograd.grad(y.sum(), (x, m))
    assert (y.shape, dx.shape) == ((2, 0, 16), (2, 0, 24))
    assert not dm.any()
    wide = torch.randn(2, 24, 5, device=device).transpose(1, 2)
    y = dora_linear(wide, weight, a, b, m, scale=1.0)
    assert_close(y, dora_linear_reference(wide.double(), weight.double(), a.double(), b.double(), m.double(), 1.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_reads_the_weight_as_it_lies(dtype: torch.dtype, device: torch.device) -> None:
    weight = torch.randn(75, 140, device=device).to(dtype)[::2, 3:136]
    a, q = torch.randn(5, 133, device=device).to(dtype), torch.randn(38, 5, device=device).to(dtype).t()
    found = dora_norm(weight, a, q)
    assert found.dtype == torch.float32
    truth = (weight.double() + q.double().t() @ a.double()).norm(dim=1)
    assert ((found - truth).abs() <= 1e-5 * truth).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_through_a_factor(dtype: torch.dtype, device: torch.device) -> None:
    dy = torch.randn(301, 150, device=device).to(dtype)[:, 3:148]
    z, factor = torch.randn(301, 145, device=device).to(dtype), torch.randn(145, device=device)
    dz, dfactor, dot = through_factor(dy, z, factor)
    wide = dy.double() * factor
    assert dz.dtype == dtype
    assert_close(dz, wide)
    assert_close(dfactor, (dy.double() * z).sum(0))
    assert_close(dot, (wide * z).sum(1))


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_and_qkv(dtype: torch.dtype, has_bias: bool, device: torch.device) -> None:
    """Queries and values with DoRA, keys without: those columns keep a factor of 1."""
    rows, d, columns = 21, 32, [16, 8, 8]
    shapes = {"aq": (4, d), "bq": (16, 4), "ak": (3, d), "bk": (8, 3), "av": (2, d), "bv": (8, 2)}
    leaves = Leaves(dtype, device, h=(rows, d), gain=(d,), w=(32, d), bias=(32,), **shapes)
    weight = leaves.used.pop("w").detach()
    if not has_bias:
        del leaves.used["bias"]
    for name, count in (("mq", 16), ("mv", 8)):
        leaves.add(name, torch.rand(count, device=device) + 0.5)
    angle = torch.randn(rows, 4, device=device)
    is_dora = torch.tensor([True] * 16 + [False] * 8 + [True] * 8, device=device)

    def run(h: torch.Tensor, gain: torch.Tensor, **w: torch.Tensor) -> torch.Tensor:
        several = [[Adapter(w[f"a{name}"], w[f"b{name}"], 1.0)] for name in "qkv"]
        joined = join_adapters(several, columns, h.dtype)
        assert joined is not None
        magnitude = torch.cat((w["mq"], w["mq"].new_ones(8), w["mv"]))
        joined = Joined(joined.a, joined.q, joined.ranks, joined.rates, None, magnitude, is_dora)
        return norm_qkv(h, gain, weight, w.get("bias"), joined, (angle.cos(), angle.sin(), 3), eps=1e-5)

    def truth(h: torch.Tensor, gain: torch.Tensor, **w: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.rms_norm(h, (d,), gain, 1e-5)
        wq, wk, wv = weight.to(x.dtype).split(columns)
        q = whole(x, wq, w["aq"], w["bq"], w["mq"].to(x.dtype))
        k = x @ wk.t() + x @ w["ak"].t() @ w["bk"].t()
        y = torch.cat((q, k, whole(x, wv, w["av"], w["bv"], w["mv"].to(x.dtype))), 1)
        y = y + w["bias"] if has_bias else y
        left, right = y[:, :24].unflatten(1, (3, 2, 4)).unbind(2)
        c, s = angle.cos()[:, None].to(x.dtype), angle.sin()[:, None].to(x.dtype)
        turned = torch.stack((left * c - right * s, right * c + left * s), 2).flatten(1)
        return torch.cat((turned, y[:, 24:]), 1)

    leaves.check(run, truth)


@pytest.mark.parametrize("dtype", DTYPES)
def test_residual_linear(dtype: torch.dtype, device: torch.device) -> None:
    leaves = Leaves(dtype, device, o=(21, 40), w=(32, 40), a=(4, 40), b=(32, 4), h=(21, 32))
    weight = leaves.used.pop("w").detach()
    leaves.add("m", torch.rand(32, device=device) + 0.5)

    def run(o: torch.Tensor, a: torch.Tensor, b: torch.Tensor, h: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        joined = join_adapters([[Adapter(a, b, 1.0)]], [32], o.dtype)
        assert joined is not None
        return residual_linear(o, weight, None, Joined(joined.a, joined.q, (4,), (0.0,), None, m), h)

    leaves.check(run, lambda o, a, b, h, m: h + whole(o, weight, a, b, m.to(o.dtype)))


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_and_mlp(dtype: torch.dtype, activation: str, device: torch.device) -> None:
    rows, d, f = 21, 32, 40
    shapes = {"a0": (2, d), "b0": (f, 2), "a1": (4, d), "b1": (f, 4), "a2": (4, f), "b2": (d, 4)}
    leaves = Leaves(dtype, device, h=(rows, d), gain=(d,), gate=(f, d), up=(f, d), down=(d, f), **shapes)
    gate, up, down = (leaves.used.pop(name).detach() for name in ("gate", "up", "down"))
    for name, count in (("m0", f), ("m1", f), ("m2", d)):
        leaves.add(name, torch.rand(count, device=device) + 0.5)

    def run(h: torch.Tensor, gain: torch.Tensor, **w: torch.Tensor) -> torch.Tensor:
        several = [[Adapter(w["a0"], w["b0"], 1.0)], [Adapter(w["a1"], w["b1"], 1.0)]]
        one = join_adapters(several, [f, f], h.dtype, is_interleaved=True)
        other = join_adapters([[Adapter(w["a2"], w["b2"], 1.0)]], [d], h.dtype)
        assert one is not None
        assert other is not None
        first = Joined(one.a, one.q, one.ranks, one.rates, None, torch.stack((w["m0"], w["m1"]), 1).flatten())
        second = Joined(other.a, other.q, other.ranks, other.rates, None, w["m2"])
        both = torch.stack((gate, up), 1).flatten(0, 1)
        return norm_mlp(h, gain, both, down, (first, second), eps=1e-5, activation=activation)

    def truth(h: torch.Tensor, gain: torch.Tensor, **w: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.rms_norm(h, (d,), gain, 1e-5)
        g = whole(x, gate, w["a0"], w["b0"], w["m0"].to(x.dtype))
        u = whole(x, up, w["a1"], w["b1"], w["m1"].to(x.dtype))
        silu, gelu = torch.nn.functional.silu, torch.nn.functional.gelu
        act = (silu(g) if activation == "silu" else gelu(g, approximate="tanh")) * u
        return h + whole(act, down, w["a2"], w["b2"], w["m2"].to(x.dtype))

    leaves.check(run, truth)


def test_what_the_parts_do_not_do_is_named(device: torch.device) -> None:
    o, weight, h = (torch.ones(size, device=device) for size in ((2, 4), (3, 4), (2, 3)))
    a, q, m = (torch.ones(size, device=device) for size in ((1, 4), (1, 3), (3,)))
    with pytest.raises(ValueError, match=r"use tiltyard_kernels\.dora\.dora_linear for dropout"):
        residual_linear(o, weight, None, Joined(a, q, (1,), (0.5,), None, m), h)
    with pytest.raises(ValueError, match=r"magnitude is \(4,\); it must be \(3,\)"):
        dora_linear(o, weight, a, q.t(), torch.ones(4, device=device), scale=1.0)


def test_whole_under_torch_compile(device: torch.device) -> None:
    x, weight, a, b = (torch.randn(size, device=device) for size in ((19, 24), (16, 24), (3, 24), (16, 3)))
    leaves = [value.requires_grad_() for value in (x, a, b, torch.ones(16, device=device))]

    def step(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        return dora_linear(x, weight, a, b, m, scale=0.5).square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, expected = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, step))
    for gradient, its_truth in zip(got, expected, strict=True):
        torch.testing.assert_close(gradient, its_truth)
