"""LoRA linears against plain PyTorch."""

import pytest
import torch
from kernel_errors import assert_close

from tiltyard_kernels.lora import (
    Adapter,
    adapted_linear,
    lora_linear,
    lora_linear_reference,
    lora_scale,
    multi_lora_linear,
)
from tiltyard_kernels.quantise import Fp8Tensor, Int4Tensor, Nf4Tensor, QuantisedTensor

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]


def parts(
    rank: int, *, device: torch.device, dtype: torch.dtype = torch.float64, tokens: int = 7, k: int = 10, n: int = 12
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(tokens, k, device=device, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(n, k, device=device, dtype=torch.float64).to(dtype)
    a = torch.randn(rank, k, device=device, dtype=torch.float64).to(dtype).requires_grad_()
    b = torch.randn(n, rank, device=device, dtype=torch.float64).to(dtype).requires_grad_()
    return x, weight, a, b


@pytest.mark.parametrize("rank", [1, 4])
def test_gradients_are_those_of_the_definition(rank: int, device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("gradients are checked in float64, which kernels have in the interpreter only")
    x, weight, a, b = parts(rank, device=device)
    assert torch.autograd.gradcheck(lambda x, a, b: lora_linear(x, weight, a, b, scale=0.5), (x, a, b), fast_mode=True)


@pytest.mark.parametrize("rank", [8, 16, 64, 256])
@pytest.mark.parametrize("dtype", DTYPES)
def test_working_types(rank: int, dtype: torch.dtype, device: torch.device) -> None:
    x, weight, a, b = parts(rank, device=device, dtype=dtype, tokens=199, k=72, n=136)
    dy = torch.randn(199, 136, device=device).to(dtype)
    y = lora_linear(x, weight, a, b, scale=0.25)
    gradients = torch.autograd.grad(y, (x, a, b), dy)
    wide = [v.detach().double().requires_grad_() for v in (x, a, b)]
    truth = lora_linear_reference(wide[0], weight.double(), wide[1], wide[2], scale=0.25)
    peer = lora_linear_reference(x, weight, a, b, scale=0.25)
    assert_close(y, truth, peer=peer)
    truths = torch.autograd.grad(truth, wide, dy.double())
    peers = torch.autograd.grad(peer, (x, a, b), dy)
    for gradient, its_truth, its_peer in zip(gradients, truths, peers, strict=True):
        assert_close(gradient, its_truth, peer=its_peer)


def test_batched_input_and_adapters_in_another_type(device: torch.device) -> None:
    x, weight, a, b = parts(4, device=device, dtype=torch.float32, tokens=6)
    y = lora_linear(x.half().reshape(2, 3, 10), weight.half(), a, b, scale=0.5)
    assert (y.shape, y.dtype) == ((2, 3, 12), torch.float16)
    da, db = torch.autograd.grad(y.float().sum(), (a, b))
    assert (da.dtype, db.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("make", [Int4Tensor, Nf4Tensor, Fp8Tensor])
def test_quantised_bases(make: type[QuantisedTensor], device: torch.device) -> None:
    x, weight, a, b = parts(8, device=device, dtype=torch.float16, tokens=21, k=64, n=72)
    base = make.quantise(weight, **({} if make is Fp8Tensor else {"group": 32}))  # type: ignore[attr-defined]
    bias = torch.randn(72, device=device).half().requires_grad_()
    y = lora_linear(x, base, a, b, scale=0.5, bias=bias)
    dy = torch.randn_like(y)
    wide = [v.detach().double().requires_grad_() for v in (x, a, b, bias)]
    truth = lora_linear_reference(wide[0], base.dequantise().double(), wide[1], wide[2], scale=0.5) + wide[3]
    assert_close(y, truth)
    got = torch.autograd.grad(y, (x, a, b, bias), dy)
    for gradient, its_truth in zip(got, torch.autograd.grad(truth, wide, dy.double()), strict=True):
        assert_close(gradient, its_truth)


def test_several_adapters_in_a_batch(device: torch.device) -> None:
    x, weight, _a, _b = parts(4, device=device, dtype=torch.float32, tokens=9)
    a, b = (torch.randn(size, device=device).requires_grad_() for size in ((3, 4, 10), (3, 12, 4)))
    adapter = torch.tensor([0, 2, -1, 1, 2, 0, 0, -1, 2], device=device)
    scales = [0.5, 1.0, 2.0]
    y = multi_lora_linear(x, weight, a, b, adapter, scales=scales)
    wide = [v.detach().double().requires_grad_() for v in (x, a, b)]
    rows = [wide[0][m] @ weight.double().t() for m in range(9)]
    for m, index in enumerate(adapter.tolist()):
        if index >= 0:
            rows[m] = rows[m] + scales[index] * wide[0][m] @ wide[1][index].t() @ wide[2][index].t()
    truth = torch.stack(rows)
    assert_close(y, truth)
    dy = torch.randn_like(y)
    got = torch.autograd.grad(y, (x, a, b), dy)
    for gradient, its_truth in zip(got, torch.autograd.grad(truth, wide, dy.double()), strict=True):
        assert_close(gradient, its_truth)
    with pytest.raises(ValueError, match="at most 512 fit a batch"):
        multi_lora_linear(x, weight, a.repeat(50, 1, 1), b.repeat(50, 1, 1), adapter, scales=scales * 50)


def test_several_active_adapters_of_different_ranks(device: torch.device) -> None:
    x, weight, a, b = parts(4, device=device, dtype=torch.float32, tokens=9)
    _, _, a2, b2 = parts(7, device=device, dtype=torch.float32)
    bias = torch.randn(12, device=device).requires_grad_()
    several = [Adapter(a, b, 0.5), Adapter(a2, b2, 2.0)]
    y = adapted_linear(x.reshape(3, 3, 10), weight, several, bias=bias)
    assert y.shape == (3, 3, 12)
    wide = [v.detach().double().requires_grad_() for v in (x, a, b, a2, b2, bias)]
    truth = lora_linear_reference(wide[0], weight.double(), wide[1], wide[2], scale=0.5) + wide[5]
    truth = truth + 2.0 * wide[0] @ wide[3].t() @ wide[4].t()
    assert_close(y.flatten(0, 1), truth)
    dy = torch.randn(9, 12, device=device)
    got = torch.autograd.grad(y.flatten(0, 1), (x, a, b, a2, b2, bias), dy)
    for gradient, its_truth in zip(got, torch.autograd.grad(truth, wide, dy.double()), strict=True):
        assert_close(gradient, its_truth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [None, Int4Tensor, Nf4Tensor])
def test_each_row_its_own_adapter(make: type[QuantisedTensor] | None, dtype: torch.dtype, device: torch.device) -> None:
    """Ranks differ, rows are read through a view, and no row takes the last adapter."""
    weight = torch.randn(72, 64, device=device).to(dtype)
    base = weight if make is None else make.quantise(weight, group=32)  # type: ignore[attr-defined]
    plain = weight if make is None else base.dequantise()  # type: ignore[attr-defined]
    x = torch.randn(13, 80, device=device).to(dtype)[:, 3:67]
    several = [
        Adapter(torch.randn(rank, 64, device=device), torch.randn(72, rank, device=device), 0.5) for rank in (3, 16, 5)
    ]
    chosen = torch.randint(-1, 2, (13,), device=device)
    y = adapted_linear(x, base, several, chosen=chosen)
    truth, peer = x.double() @ plain.double().t(), x @ plain.t()
    for row, index in enumerate(chosen.tolist()):
        if index >= 0:
            one = several[index]
            truth[row] += 0.5 * x[row].double() @ one.a.double().t() @ one.b.double().t()
            peer[row] += 0.5 * (x[row] @ one.a.to(dtype).t()) @ one.b.to(dtype).t()
    assert_close(y, truth, peer=peer)
    empty = adapted_linear(x[:0], base, several, chosen=chosen[:0])
    assert empty.shape == (0, 72)


def test_bad_choices_are_named() -> None:
    x, weight = torch.ones(2, 3), torch.ones(5, 3)
    one = Adapter(torch.ones(2, 3), torch.ones(5, 2), 1.0)
    with pytest.raises(ValueError, match=r"chosen is \(3,\) of torch.int64; it must be \(2,\) integers"):
        adapted_linear(x, weight, [one], chosen=torch.zeros(3, dtype=torch.long))
    big = Adapter(torch.ones(300, 3), torch.ones(5, 300), 1.0)
    with pytest.raises(ValueError, match="have rank 600 together; at most 512 fit"):
        adapted_linear(x, weight, [big, big])


def test_whole_under_torch_compile(device: torch.device) -> None:
    x, weight, a, b = parts(4, device=device, dtype=torch.float32)

    def step(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return lora_linear(x, weight, a, b, scale=0.5).square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, expected = (torch.autograd.grad(f(x, a, b), (x, a, b)) for f in (compiled, step))
    for gradient, its_truth in zip(got, expected, strict=True):
        torch.testing.assert_close(gradient, its_truth)


def test_scales() -> None:
    assert lora_scale(32, 16) == 2.0
    assert lora_scale(32, 16, rank_stabilised=True) == 8.0
    with pytest.raises(ValueError, match="the rank is 0"):
        lora_scale(32, 0)


def test_bad_adapters_are_named() -> None:
    x, weight = torch.ones(2, 3), torch.ones(5, 3)
    with pytest.raises(ValueError, match=r"lora_a \(2, 4\) and lora_b \(5, 2\) must be \(r, 3\) and \(5, r\)"):
        lora_linear(x, weight, torch.ones(2, 4), torch.ones(5, 2), scale=1.0)
    with pytest.raises(ValueError, match="a LoRA base is frozen"):
        lora_linear(x, weight.requires_grad_(), torch.ones(2, 3), torch.ones(5, 2), scale=1.0)
    with pytest.raises(ValueError, match=r"dropout is 1\.5"):
        lora_linear(x, weight.detach(), torch.ones(2, 3), torch.ones(5, 2), scale=1.0, dropout=1.5)
