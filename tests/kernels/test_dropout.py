"""Dropout before adapters: masks against Philox in plain integers, products and gradients against float64."""

from collections.abc import Callable

import pytest
import torch
from kernel_errors import assert_close, assert_gradients_close, relative_error
from torch.utils.checkpoint import checkpoint

from tiltyard_kernels.blocks import dropout as dropout_module
from tiltyard_kernels.blocks.adapted import norm_mlp, norm_qkv, residual_linear
from tiltyard_kernels.blocks.adapters import Adapter, join_adapters
from tiltyard_kernels.blocks.dropout import drop, dropped_gradients, dropped_projection, kept_reference
from tiltyard_kernels.lora import adapted_linear, lora_linear
from tiltyard_kernels.quantise import Int4Tensor, Nf4Tensor, QuantisedTensor

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
SEED = 20261130


def seeds(count: int, device: torch.device) -> torch.Tensor:
    """Those which a call of that many adapters draws first after torch.manual_seed(SEED), as `check` makes it."""
    torch.manual_seed(SEED)
    return torch.randint(2**63 - 1, (count,), device=device)


def masks(drawn: torch.Tensor, rows: int, columns: int, rates: list[float]) -> list[torch.Tensor]:
    """What each adapter's x is multiplied with, float64."""
    found = zip(drawn.tolist(), rates, strict=True)
    return [kept_reference(seed, rows, columns, rate).to(drawn.device) / (1 - rate) for seed, rate in found]


def test_words_are_philox() -> None:
    """The known answers that Random123 ships for Philox 4x32 with ten rounds."""
    zeros = torch.zeros(1, 1, dtype=torch.long)
    words = dropout_module._words((0, 0), (zeros, zeros, zeros, zeros))
    assert [int(word) for word in words] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = torch.full((1, 1), 0xFFFFFFFF)
    words = dropout_module._words((0xFFFFFFFF, 0xFFFFFFFF), (ones, ones, ones, ones))
    assert [int(word) for word in words] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 0.999])
def test_kernels_draw_the_reference_masks(rate: float, device: torch.device) -> None:
    x = torch.ones(41, 139, device=device)[:, :133]
    drawn = torch.tensor([7, 2**62 + 5, 2**63 - 1], device=device)
    for index, seed in enumerate(drawn.tolist()):
        kept = drop(x, drawn, index, rate) != 0
        assert torch.equal(kept.cpu(), kept_reference(seed, 41, 133, rate))


def test_masks_are_as_likely_as_they_say_and_independent() -> None:
    """Of 600,000 numbers: the rate within five standard deviations, and no relation between neighbours or seeds."""
    rows, columns, rate = 1000, 600, 0.3
    one, other = (kept_reference(seed, rows, columns, rate).double() - (1 - rate) for seed in (1, 2))
    count, variance = rows * columns, rate * (1 - rate)
    limit = 5 / count**0.5
    assert abs(one.mean()) < limit * variance**0.5
    pairs = [(one, other), (one[1:], one[:-1]), *((one[:, step:], one[:, :-step]) for step in (1, 2, 4))]
    for left, right in pairs:
        assert abs((left * right).mean() / variance) < 1.01 * limit
    assert one.mean(0).abs().max() < 6 * (variance / rows) ** 0.5
    assert one.mean(1).abs().max() < 6 * (variance / columns) ** 0.5


@pytest.mark.parametrize(
    ("ranks", "rates"), [([4, 5, 5, 5], [0.1, 0.3, 0.3, 0.9]), ([3, 16, 70], [0.3, 0.0, 0.9]), ([300], [0.5])]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_thin_products(dtype: torch.dtype, ranks: list[int], rates: list[float], device: torch.device) -> None:
    rows, columns = 71, 150
    x = torch.randn(rows, columns + 6, device=device).to(dtype)[:, 2 : columns + 2]
    a, dp = (torch.randn(size, device=device).to(dtype) for size in ((sum(ranks), columns), (rows, sum(ranks))))
    drawn = seeds(len(ranks), device)
    factors = masks(drawn, rows, columns, rates)
    p = dropped_projection(x, a, drawn, ranks, rates)
    dx, da = dropped_gradients(dp, x, a, drawn, ranks, rates, has_dx=True)
    parts = list(zip(factors, dp.double().split(ranks, 1), a.double().split(ranks), strict=True))
    assert dx is not None
    assert da is not None
    assert_close(p, torch.cat([(x.double() * factor) @ part.t() for factor, _, part in parts], 1))
    assert_close(dx, torch.stack([factor * (pulled @ part) for factor, pulled, part in parts]).sum(0))
    truth = torch.cat([pulled.t() @ (x.double() * factor) for factor, pulled, _ in parts])
    assert_close(da, truth)
    dx_alone, da_none = dropped_gradients(dp, None, a, drawn, ranks, rates, has_dx=True)
    dx_none, da_alone = dropped_gradients(dp, x, a, drawn, ranks, rates, has_dx=False)
    assert da_none is dx_none is None
    assert dx_alone is not None
    assert da_alone is not None
    assert torch.equal(dx_alone, dx)
    assert torch.equal(da_alone, da)


def check(
    run: Callable[..., torch.Tensor], truth: Callable[..., torch.Tensor], leaves: dict[str, torch.Tensor]
) -> None:
    """Values and gradients of `run` are those of `truth` in float64, as near as PyTorch comes in the same type."""
    used = {name: value.requires_grad_() for name, value in leaves.items()}
    wide = {name: value.detach().double().requires_grad_() for name, value in leaves.items()}
    torch.manual_seed(SEED)
    y, expected, peer = run(**used), truth(**wide), truth(**used)
    assert_close(y, expected, peer=peer)
    dy = torch.randn_like(expected)
    got = torch.autograd.grad(y, list(used.values()), dy.to(y.dtype))
    peers = torch.autograd.grad(peer, list(used.values()), dy.to(peer.dtype))
    assert_gradients_close(got, torch.autograd.grad(expected, list(wide.values()), dy), peers)


def random(dtype: torch.dtype, device: torch.device, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name: (torch.randn(size, device=device) / size[-1] ** 0.5).to(dtype) for name, size in shapes.items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_linear_drops_what_the_adapter_sees_only(dtype: torch.dtype, device: torch.device) -> None:
    rows, k, n, rate = 53, 40, 72, 0.4
    mask = masks(seeds(1, device), rows, k, [rate])[0]
    leaves = random(dtype, device, x=(rows, k), w=(n, k), a=(8, k), b=(n, 8), bias=(n,))
    weight = leaves.pop("w")

    def run(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return lora_linear(x, weight, a, b, scale=2.0, bias=bias, dropout=rate)

    def truth(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        seen = x * mask.to(x.dtype)
        return x @ weight.to(x.dtype).t() + bias + 2.0 * (seen @ a.t()) @ b.t()

    check(run, truth, leaves)


@pytest.mark.parametrize("make", [Int4Tensor, Nf4Tensor])
def test_over_quantised_bases(make: type[QuantisedTensor], device: torch.device) -> None:
    leaves = random(torch.float16, device, x=(21, 64), w=(72, 64), a=(8, 64), b=(72, 8))
    base = make.quantise(leaves.pop("w"), group=32)  # type: ignore[attr-defined]
    mask = masks(seeds(1, device), 21, 64, [0.25])[0]

    def truth(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return x @ base.dequantise().to(x.dtype).t() + ((x * mask.to(x.dtype)) @ a.t()) @ b.t()

    check(lambda x, a, b: lora_linear(x, base, a, b, scale=1.0, dropout=0.25), truth, leaves)


def test_each_of_several_adapters_draws_its_own(device: torch.device) -> None:
    rates = [0.5, 0.0, 0.2]
    factors = masks(seeds(3, device), 30, 24, rates)
    leaves = random(torch.float32, device, x=(30, 24), w=(16, 24), a=(3, 24), b=(16, 3))
    weight = leaves.pop("w")

    def run(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return adapted_linear(x, weight, [Adapter(a, b, 1.0, rate) for rate in rates])

    def truth(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        whole = torch.stack([(x * factor.to(x.dtype)) @ a.t() @ b.t() for factor in factors]).sum(0)
        return x @ weight.to(x.dtype).t() + whole

    check(run, truth, leaves)


@pytest.mark.parametrize("trains_base", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_and_qkv(dtype: torch.dtype, trains_base: bool, device: torch.device) -> None:
    rows, d, columns = 21, 32, [16, 8, 8]
    factors = masks(seeds(2, device), rows, d, [0.3, 0.6])
    ranks = {"aq": (4, d), "bq": (16, 4), "av": (2, d), "bv": (8, 2)}
    leaves = random(dtype, device, h=(rows, d), gain=(d,), w=(32, d), bias=(32,), **ranks)
    weight = leaves["w"] if trains_base else leaves.pop("w")
    angle = torch.randn(rows, 4, device=device)

    def run(h: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, **ab: torch.Tensor) -> torch.Tensor:
        several = [[Adapter(ab["aq"], ab["bq"], 0.5, 0.3)], [], [Adapter(ab["av"], ab["bv"], 2.0, 0.6)]]
        joined = join_adapters(several, columns, h.dtype)
        return norm_qkv(h, gain, ab.get("w", weight), bias, joined, (angle.cos(), angle.sin(), 3), eps=1e-5)

    def truth(h: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, **ab: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.rms_norm(h, (d,), gain, 1e-5)
        y = list((x @ ab.get("w", weight).to(x.dtype).t() + bias).split(columns, 1))
        y[0] = y[0] + 0.5 * ((x * factors[0].to(x.dtype)) @ ab["aq"].t()) @ ab["bq"].t()
        y[2] = y[2] + 2.0 * ((x * factors[1].to(x.dtype)) @ ab["av"].t()) @ ab["bv"].t()
        left, right = torch.cat(y, 1)[:, :24].unflatten(1, (3, 2, 4)).unbind(2)
        c, s = angle.cos()[:, None].to(x.dtype), angle.sin()[:, None].to(x.dtype)
        turned = torch.stack((left * c - right * s, right * c + left * s), 2).flatten(1)
        return torch.cat((turned, y[2]), 1)

    check(run, truth, leaves)


@pytest.mark.parametrize("dtype", DTYPES)
def test_residual_linear(dtype: torch.dtype, device: torch.device) -> None:
    factor = masks(seeds(1, device), 21, 40, [0.5])[0]
    leaves = random(dtype, device, o=(21, 40), w=(32, 40), a=(4, 40), b=(32, 4), h=(21, 32))
    weight = leaves.pop("w")

    def run(o: torch.Tensor, a: torch.Tensor, b: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return residual_linear(o, weight, None, join_adapters([[Adapter(a, b, 1.0, 0.5)]], [32], o.dtype), h)

    def truth(o: torch.Tensor, a: torch.Tensor, b: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return h + o @ weight.to(o.dtype).t() + ((o * factor.to(o.dtype)) @ a.t()) @ b.t()

    check(run, truth, leaves)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_and_mlp(dtype: torch.dtype, device: torch.device) -> None:
    rows, d, f = 21, 32, 40
    torch.manual_seed(SEED)
    first, second = (torch.randint(2**63 - 1, (1,), device=device) for _ in range(2))
    factors = masks(first, rows, d, [0.3])[0], masks(second, rows, f, [0.6])[0]
    leaves = random(
        dtype, device, h=(rows, d), gain=(d,), a=(4, d), b=(f, 4), a2=(4, f), b2=(d, 4), gate_up=(2 * f, d), down=(d, f)
    )
    gate_up, down = leaves.pop("gate_up"), leaves.pop("down")

    def run(h: torch.Tensor, gain: torch.Tensor, **w: torch.Tensor) -> torch.Tensor:
        one = join_adapters([[], [Adapter(w["a"], w["b"], 0.5, 0.3)]], [f, f], h.dtype, is_interleaved=True)
        other = join_adapters([[Adapter(w["a2"], w["b2"], 2.0, 0.6)]], [d], h.dtype)
        return norm_mlp(h, gain, gate_up, down, (one, other), eps=1e-5)

    def truth(h: torch.Tensor, gain: torch.Tensor, **w: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.rms_norm(h, (d,), gain, 1e-5)
        gate, up = x @ gate_up[0::2].to(x.dtype).t(), x @ gate_up[1::2].to(x.dtype).t()
        up = up + 0.5 * ((x * factors[0].to(x.dtype)) @ w["a"].t()) @ w["b"].t()
        act = torch.nn.functional.silu(gate) * up
        seen = act * factors[1].to(x.dtype)
        return h + act @ down.to(x.dtype).t() + 2.0 * (seen @ w["a2"].t()) @ w["b2"].t()

    check(run, truth, leaves)


def test_is_repeated_by_a_seed_and_by_checkpointing_and_falls_away(device: torch.device) -> None:
    leaves = random(torch.float32, device, x=(19, 24), w=(16, 24), a=(3, 24), b=(16, 3))
    weight = leaves.pop("w")
    x, a, b = (value.requires_grad_() for value in leaves.values())

    def linear(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, training: bool = True) -> torch.Tensor:
        return lora_linear(x, weight, a, b, scale=1.0, dropout=0.5, training=training)

    torch.manual_seed(SEED)
    once, again = linear(x, a, b), linear(x, a, b)
    assert relative_error(once, again) > 0.01
    torch.manual_seed(SEED)
    assert torch.equal(linear(x, a, b), once)
    torch.manual_seed(SEED)
    kept = checkpoint(linear, x, a, b, use_reentrant=False)
    assert torch.equal(kept, once)
    got, expected = (torch.autograd.grad(y.square().sum(), (x, a, b)) for y in (kept, once))
    for gradient, its_truth in zip(got, expected, strict=True):
        assert torch.equal(gradient, its_truth)
    still = linear(x, a, b, training=False)
    assert torch.equal(still, lora_linear(x, weight, a, b, scale=1.0))


def test_the_mean_over_masks_is_the_linear_without_dropout(device: torch.device) -> None:
    leaves = random(torch.float32, device, x=(8, 32), w=(16, 32), a=(4, 32), b=(16, 4))
    x, weight, a, b = leaves.values()
    many = 600
    y = lora_linear(x.repeat(many, 1), weight, a, b, scale=8.0, dropout=0.5).unflatten(0, (many, 8))
    plain = lora_linear(x, weight, a, b, scale=8.0)
    deviation = y.std(0) / many**0.5
    assert ((y.mean(0) - plain).abs() < 5 * deviation).all()
    # Of a sum over columns with independent masks: Σ (x · A)² rate / (1 − rate), through B.
    through = (8.0 * (b @ a))[None] * x[:, None, :]
    assert_close(y.std(0), through.square().sum(2).sqrt().double(), peer=1.1 * through.square().sum(2).sqrt())


def test_no_rows(device: torch.device) -> None:
    leaves = random(torch.float32, device, w=(16, 24), a=(3, 24), b=(16, 3))
    weight, a, b = leaves["w"], leaves["a"].requires_grad_(), leaves["b"].requires_grad_()
    x = torch.zeros(0, 24, device=device, requires_grad=True)
    y = lora_linear(x, weight, a, b, scale=1.0, dropout=0.5)
    dx, da, db = torch.autograd.grad(y.sum(), (x, a, b))
    assert (y.shape, dx.shape) == ((0, 16), (0, 24))
    assert not da.any()
    assert not db.any()


def test_whole_under_torch_compile(device: torch.device) -> None:
    leaves = random(torch.float32, device, x=(19, 24), w=(16, 24), a=(3, 24), b=(16, 3))
    weight = leaves.pop("w")
    x, a, b = (value.requires_grad_() for value in leaves.values())

    def step(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return lora_linear(x, weight, a, b, scale=0.5, dropout=0.25).square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    found = []
    for f in (compiled, step):
        torch.manual_seed(SEED)
        found.append(torch.autograd.grad(f(x, a, b), (x, a, b)))
    for gradient, its_truth in zip(*found, strict=True):
        torch.testing.assert_close(gradient, its_truth)
