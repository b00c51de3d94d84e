"""LM head and cross-entropy against PyTorch's definition."""

from typing import Any

import pytest
import torch
from kernel_errors import ROUNDING, assert_close, relative_error

from tiltyard_kernels import cross_entropy
from tiltyard_kernels.cross_entropy import linear_cross_entropy, linear_cross_entropy_reference

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"label_smoothing": 0.1},
    {"z_loss": 1e-2},
    {"softcap": 3.0},
    {"label_smoothing": 0.1, "z_loss": 1e-2, "softcap": 5.0, "reduction": "sum"},
]


def case(
    device: torch.device, dtype: torch.dtype, *, tokens: int = 70, width: int = 24, vocabulary: int = 199
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(tokens, width, device=device).to(dtype).requires_grad_()
    weight = (torch.randn(vocabulary, width, device=device) * 0.5).to(dtype).requires_grad_()
    labels = torch.randint(0, vocabulary, (tokens,), device=device)
    labels[::5] = -100
    return x, weight, labels


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little room that rows go in several chunks, the last of them smaller."""
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 199 * 4 * 30)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "+".join(variant) or "plain")
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_and_gradients(dtype: torch.dtype, variant: dict[str, Any], device: torch.device) -> None:
    x, weight, labels = case(device, dtype)
    result = linear_cross_entropy(x, weight, labels, **variant)
    gradients = torch.autograd.grad(result.loss * 4, (x, weight))  # a power of two costs no rounding
    wide = [v.detach().double().requires_grad_() for v in (x, weight)]
    truth = linear_cross_entropy_reference(*wide, labels, **variant)
    assert relative_error(result.loss, truth) <= ROUNDING[dtype]  # the logits were rounded to dtype
    truths = torch.autograd.grad(truth * 4, wide)
    peers = torch.autograd.grad(linear_cross_entropy_reference(x, weight, labels, **variant) * 4, (x, weight))
    for gradient, its_truth, peer in zip(gradients, truths, peers, strict=True):
        assert_close(gradient, its_truth, peer=peer)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_factor_costs_one_rounding(dtype: torch.dtype, device: torch.device) -> None:
    x, weight, labels = case(device, dtype)
    plain, scaled = (
        torch.autograd.grad(linear_cross_entropy(x, weight, labels).loss * factor, (x, weight)) for factor in (1, 3)
    )
    for before, after in zip(plain, scaled, strict=True):
        torch.testing.assert_close(after.double(), before.double() * 3, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.usefixtures("small_chunks")
def test_rows_statistics(device: torch.device) -> None:
    x, weight, labels = case(device, torch.float32)
    result = linear_cross_entropy(x, weight, labels)
    logprobs = torch.log_softmax(x.detach().double() @ weight.detach().double().t(), 1)
    is_valid = labels >= 0
    assert_close(result.logprobs[is_valid], logprobs[is_valid, labels[is_valid]])
    assert torch.equal(result.logprobs[~is_valid], torch.zeros_like(result.logprobs[~is_valid]))
    assert result.entropy is not None
    assert_close(result.entropy, -(logprobs.exp() * logprobs).sum(1))


def test_frozen_head_and_no_gradient(device: torch.device) -> None:
    x, weight, labels = case(device, torch.float32)
    frozen = weight.detach()
    trained = linear_cross_entropy(x, weight, labels)
    loss = linear_cross_entropy(x, frozen, labels)
    (expected, _), (dx,) = torch.autograd.grad(trained.loss, (x, weight)), torch.autograd.grad(loss.loss, (x,))
    assert torch.equal(dx, expected)
    with torch.no_grad():
        still = linear_cross_entropy(x, weight, labels)
    assert still.entropy is None
    torch.testing.assert_close(still.loss, trained.loss.detach())


def test_every_row_ignored(device: torch.device) -> None:
    x, weight, labels = case(device, torch.float32)
    result = linear_cross_entropy(x, weight, torch.full_like(labels, -100))
    gradients = torch.autograd.grad(result.loss, (x, weight))
    assert float(result.loss.detach()) == 0.0
    assert all(float(gradient.abs().sum()) == 0.0 for gradient in gradients)


def test_gradients_are_those_of_the_definition(device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("gradients are checked in float64, which kernels have in the interpreter only")
    x, weight, labels = case(device, torch.float64, tokens=6, width=5, vocabulary=9)
    assert torch.autograd.gradcheck(
        lambda x, w: linear_cross_entropy(x, w, labels, label_smoothing=0.1, z_loss=0.01, softcap=4.0).loss,
        (x, weight),
        fast_mode=True,
    )


def test_whole_under_torch_compile(device: torch.device) -> None:
    x, weight, labels = case(device, torch.float32)

    def step(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(x, weight, labels).loss

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, expected = (torch.autograd.grad(f(x, weight), (x, weight)) for f in (compiled, step))
    for gradient, its_truth in zip(got, expected, strict=True):
        torch.testing.assert_close(gradient, its_truth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(3)}, "they must be .4,. integers"),
        ({"ignore_index": 2}, "ignore_index 2 is also a token"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"softcap": 0.0}, "softcap is 0.0"),
        ({"reduction": "none"}, "reduction is 'none'"),
        ({"weight": torch.zeros(5, 7)}, r"must be \(T, H\) and \(V, H\)"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "x": torch.zeros(4, 3),
        "weight": torch.zeros(5, 3),
        "labels": torch.zeros(4, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**(arguments | change))


def test_a_graph_that_is_kept_gives_its_gradients_again(device: torch.device) -> None:
    """The last backward scales in the gradients' own memory; those before it must not."""
    x, weight, labels = case(device, torch.float32)
    loss = linear_cross_entropy(x, weight, labels).loss * 3
    first = torch.autograd.grad(loss, (x, weight), retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    last = torch.autograd.grad(loss, (x, weight))
    for gradients in zip(first, kept, last, strict=True):
        torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
        torch.testing.assert_close(gradients[2], gradients[1])
