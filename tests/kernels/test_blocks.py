"""A block's parts, forward and backward, against plain PyTorch in float64."""

from typing import Any

import pytest
import torch
from kernel_errors import assert_close

from tiltyard_kernels import blocks
from tiltyard_kernels.blocks import attention, heads, programs, rows
from tiltyard_kernels.gemm import gemm

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
EPS = 1e-5


def leaf(*shape: int, device: torch.device, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> torch.Tensor:
    return (torch.randn(*shape, device=device, dtype=torch.float64) * scale).to(dtype).requires_grad_()


def angles(tokens: int, head_dim: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    frequencies = 10000.0 ** (-torch.arange(0, head_dim, 2, device=device) / head_dim)
    turned = torch.arange(tokens, device=device)[:, None] * frequencies
    return turned.cos(), turned.sin()


@pytest.fixture
def exact(device: torch.device) -> torch.device:
    if device.type != "cpu":
        pytest.skip("gradients are checked in float64, which kernels have in the interpreter only")
    return device


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_mlp_gradients_are_those_of_its_definition(activation: Any, exact: torch.device) -> None:
    h, gate_up, down = leaf(7, 10, device=exact), leaf(24, 10, device=exact), leaf(10, 12, device=exact)

    def forward(h: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return blocks.mlp(h, blocks.rstd_of(h.detach(), EPS), gate_up, down, eps=EPS, activation=activation)[0]

    assert torch.autograd.gradcheck(forward, (h, gate_up, down), fast_mode=True)
    torch.testing.assert_close(
        forward(h, gate_up, down), blocks.mlp_reference(h, gate_up, down, eps=EPS, activation=activation)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_mlp_in_working_types(dtype: torch.dtype, device: torch.device) -> None:
    tokens, d, f = 199, 128, 72
    h = leaf(tokens, d, device=device, dtype=dtype)
    gate_up, down = leaf(2 * f, d, device=device, dtype=dtype, scale=0.1), leaf(d, f, device=device, dtype=dtype)
    dy = torch.randn(tokens, d, device=device).to(dtype)
    y, rstd = blocks.mlp(h, blocks.rstd_of(h.detach(), EPS), gate_up, down, eps=EPS)
    gradients = torch.autograd.grad(y, (h, gate_up, down), dy)
    wide = [x.detach().double().requires_grad_() for x in (h, gate_up, down)]
    truth = blocks.mlp_reference(*wide, eps=EPS)
    truths = torch.autograd.grad(truth, wide, dy.double())
    peers = torch.autograd.grad(blocks.mlp_reference(h, gate_up, down, eps=EPS), (h, gate_up, down), dy)
    assert_close(y, truth, peer=blocks.mlp_reference(h, gate_up, down, eps=EPS))
    assert_close(rstd, blocks.rstd_of(truth, EPS).float(), peer=blocks.rstd_of(y, EPS))
    for gradient, its_truth, peer in zip(gradients, truths, peers, strict=True):
        assert_close(gradient, its_truth, peer=peer)


def test_mlp_with_frozen_weights(device: torch.device) -> None:
    h = leaf(20, 16, device=device, dtype=torch.float32)
    gate_up, down = torch.randn(24, 16, device=device), torch.randn(16, 12, device=device)
    y, _ = blocks.mlp(h, blocks.rstd_of(h.detach(), EPS), gate_up, down, eps=EPS)
    (dh,) = torch.autograd.grad(y.square().sum(), h)
    wide = h.detach().double().requires_grad_()
    truth = blocks.mlp_reference(wide, gate_up.double(), down.double(), eps=EPS)
    assert_close(dh, torch.autograd.grad(truth.square().sum(), wide)[0])


def test_qkv_gradients_are_those_of_its_definition(exact: torch.device) -> None:
    h, weight = (
        leaf(5, 12, device=exact),
        leaf(4 * 8, 12, device=exact),
    )  # two query heads, one key head, one value head
    cos, sin = angles(5, 8, exact)

    def forward(h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        rstd = blocks.rstd_of(h.detach(), EPS)
        return blocks.qkv_projection(h, rstd, weight, cos.double(), sin.double(), rotated=24)

    assert torch.autograd.gradcheck(forward, (h, weight), fast_mode=True)
    truth = blocks.qkv_projection_reference(h, blocks.rstd_of(h, EPS), weight, cos, sin, rotated=24)
    torch.testing.assert_close(forward(h, weight), truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [16, 64])
def test_qkv_in_working_types(head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
    tokens, d, heads = 99, 96, 4
    h = leaf(tokens, d, device=device, dtype=dtype)
    weight = leaf(heads * head_dim, d, device=device, dtype=dtype)
    cos, sin = angles(tokens, head_dim, device)
    rotated = 3 * head_dim
    y = blocks.qkv_projection(h, blocks.rstd_of(h.detach(), EPS), weight, cos, sin, rotated=rotated)
    wide_h, wide_weight = h.detach().double(), weight.detach().double()
    truth = blocks.qkv_projection_reference(
        wide_h, blocks.rstd_of(wide_h, EPS), wide_weight, cos.double(), sin.double(), rotated=rotated
    )
    assert_close(y, truth)


def test_qk_norm_program(device: torch.device) -> None:
    tokens, d, head_dim, heads = 40, 32, 16, 5
    h, weight = torch.randn(tokens, d, device=device), torch.randn(heads * head_dim, d, device=device)
    cos, sin = angles(tokens, head_dim, device)
    gain = torch.rand(heads * head_dim, device=device) + 0.5
    operands = {"rstd": blocks.rstd_of(h, EPS), "cos": cos, "sin": sin, "gain": gain, "rotated": 64.0, "eps": EPS}
    results = gemm(h, weight.t(), programs.normed_rotary(head_dim), **operands)
    z = (h.double() @ weight.double().t()) * operands["rstd"][:, None]
    by_head = z.view(tokens, heads, head_dim)
    normed = (by_head * torch.rsqrt(by_head.square().mean(-1, keepdim=True) + EPS)).view(z.shape) * gain
    truth = torch.cat((blocks.rotate(normed, cos, sin, 64)[:, :64], z[:, 64:]), dim=1)
    assert_close(results["out"], truth)
    assert_close(results["z"], z)


def normed_by_head(z: torch.Tensor, gain: torch.Tensor, queries: int, heads: int) -> torch.Tensor:
    """z with its first `heads` heads normed: `queries` of them by the first row of the gain, others by the second."""
    size = gain.shape[1]
    parts = z[:, : heads * size].unflatten(1, (heads, size))
    gains = gain.repeat_interleave(torch.tensor([queries, heads - queries], device=gain.device), 0)
    normed = parts * torch.rsqrt(parts.square().mean(-1, keepdim=True) + EPS) * gains
    return torch.cat((normed.flatten(1), z[:, heads * size :]), 1)


def test_qkv_with_head_norms_has_their_gradients(exact: torch.device) -> None:
    head_dim, queries, turned, heads = 8, 2, 3, 4
    h, weight = leaf(7, 12, device=exact), leaf(heads * head_dim, 12, device=exact)
    gain = leaf(2, head_dim, device=exact)
    cos, sin = (table.double() for table in angles(7, head_dim, exact))

    def forward(h: torch.Tensor, weight: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        norm = blocks.HeadNorm(gain, queries, EPS)
        rstd = blocks.rstd_of(h, EPS)
        return blocks.qkv_projection(h, rstd, weight, cos, sin, rotated=turned * head_dim, head_norm=norm)

    def truth(h: torch.Tensor, weight: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        z = (h * torch.rsqrt(h.square().mean(1, keepdim=True) + EPS)) @ weight.t()
        return blocks.rotate(normed_by_head(z, gain, queries, turned), cos, sin, turned * head_dim)

    inputs = (h, weight, gain)
    y, expected = forward(*inputs), truth(*inputs)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    dy = torch.randn_like(y)
    found, wanted = (torch.autograd.grad(made, inputs, dy) for made in (y, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_qkv_with_head_norms_in_working_types(dtype: torch.dtype, device: torch.device) -> None:
    tokens, d, head_dim, heads = 33, 48, 16, 4
    inputs = [leaf(*shape, device=device, dtype=dtype) for shape in ((tokens, d), (heads * head_dim, d), (2, head_dim))]
    cos, sin = angles(tokens, head_dim, device)
    norm = blocks.HeadNorm(inputs[2], 2, EPS)
    rstd = blocks.rstd_of(inputs[0].detach(), EPS)
    y = blocks.qkv_projection(*inputs[:1], rstd, inputs[1], cos, sin, rotated=3 * head_dim, head_norm=norm)
    wide = [one.detach().double().requires_grad_() for one in inputs]
    z = (wide[0] * torch.rsqrt(wide[0].square().mean(1, keepdim=True) + EPS)) @ wide[1].t()
    truth = blocks.rotate(normed_by_head(z, wide[2], 2, 3), cos.double(), sin.double(), 3 * head_dim)
    assert_close(y, truth)
    dy = torch.randn_like(y)
    found = torch.autograd.grad(y, inputs, dy)
    for one, other in zip(found, torch.autograd.grad(truth, wide, dy.double()), strict=True):
        assert_close(one, other)


def test_a_head_norm_must_fit_its_heads(device: torch.device) -> None:
    h, weight = torch.randn(4, 8, device=device), torch.randn(24, 8, device=device)
    cos, sin = angles(4, 8, device)
    for gain, queries in ((torch.ones(8, device=device), 1), (torch.ones(2, 8, device=device), 3)):
        norm = blocks.HeadNorm(gain, queries, EPS)
        with pytest.raises(ValueError, match="a head norm has a gain of"):
            blocks.qkv_projection(h, blocks.rstd_of(h, EPS), weight, cos, sin, rotated=16, head_norm=norm)


def test_output_projection_gradients(exact: torch.device) -> None:
    o, weight, residual = leaf(6, 9, device=exact), leaf(12, 9, device=exact), leaf(6, 12, device=exact)

    def forward(o: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return blocks.output_projection(o, weight, residual, eps=EPS)[0]

    assert torch.autograd.gradcheck(forward, (o, weight, residual), fast_mode=True)
    y, rstd = blocks.output_projection(o, weight, residual, eps=EPS)
    torch.testing.assert_close(y, residual + o @ weight.t())
    torch.testing.assert_close(rstd, blocks.rstd_of(y, EPS))


def test_layouts_go_there_and_back() -> None:
    gate, up = torch.randn(6, 4), torch.randn(6, 4)
    both = blocks.interleave_gate_up(gate, up)
    assert torch.equal(both[2], gate[1])
    assert torch.equal(both[3], up[1])
    assert all(torch.equal(*pair) for pair in zip(blocks.split_gate_up(both), (gate, up), strict=True))
    weight = torch.randn(16, 4)
    paired = blocks.pair_rotary(weight, 8)
    assert torch.equal(paired[1], weight[4])
    assert torch.equal(blocks.unpair_rotary(paired, 8), weight)
    with pytest.raises(ValueError, match="no whole number of heads"):
        blocks.pair_rotary(weight, 6)


def test_paired_rotary_scores_like_the_halves_of_transformers(device: torch.device) -> None:
    """With permuted weights every query-key score is that of rotate_half, Hugging Face's layout."""
    tokens, d, head_dim = 12, 16, 8
    x = torch.randn(tokens, d, dtype=torch.float64, device=device)
    w_q, w_k = (torch.randn(head_dim, d, dtype=torch.float64, device=device) for _ in range(2))
    cos, sin = (a.double() for a in angles(tokens, head_dim, device))

    def rotate_half(v: torch.Tensor) -> torch.Tensor:
        first, second = v[:, : head_dim // 2], v[:, head_dim // 2 :]
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=1)

    scores = rotate_half(x @ w_q.t()) @ rotate_half(x @ w_k.t()).t()
    weight = torch.cat([blocks.pair_rotary(w, head_dim) for w in (w_q, w_k)])
    ones = torch.ones(tokens, dtype=torch.float64, device=device)
    qk = blocks.qkv_projection_reference(x, ones, weight, cos, sin, rotated=2 * head_dim)
    torch.testing.assert_close(qk[:, :head_dim] @ qk[:, head_dim:].t(), scores)


@pytest.mark.parametrize("is_normed", [False, True])
def test_projections_are_whole_under_torch_compile(
    is_normed: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.type == "cpu":  # torch.compile traces kernels, but not the interpreter's
        monkeypatch.setattr(rows, "runs_in_triton", lambda _x: False)
        monkeypatch.setattr(heads, "runs_in_triton", lambda _x: False)
    h = leaf(10, 16, device=device, dtype=torch.float32)
    weight, out = torch.randn(24, 16, device=device), torch.randn(16, 24, device=device)
    angle = torch.randn(10, 4, device=device)
    norm = blocks.HeadNorm(torch.rand(2, 8, device=device), 1, EPS) if is_normed else None

    def step(h: torch.Tensor) -> torch.Tensor:
        rstd = blocks.rstd_of(h.detach(), EPS)
        y = blocks.qkv_projection(h, rstd, weight, angle.cos(), angle.sin(), rotated=16, head_norm=norm)
        y, rstd = blocks.output_projection(y, out, h, eps=EPS)
        return (y * rstd[:, None]).square().sum()

    # Compiled first, so that tracing meets programs which no call has made.
    attention._PROGRAMS.clear()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    (gradient,) = torch.autograd.grad(compiled(h), h)
    (expected,) = torch.autograd.grad(step(h), h)
    torch.testing.assert_close(gradient, expected)


def test_mlp_is_whole_under_torch_compile(device: torch.device) -> None:
    h = leaf(10, 16, device=device, dtype=torch.float32)
    gate_up, down = torch.randn(24, 16, device=device), torch.randn(16, 12, device=device)

    def step(h: torch.Tensor) -> torch.Tensor:
        y, rstd = blocks.mlp(h, blocks.rstd_of(h.detach(), EPS), gate_up, down, eps=EPS)
        return blocks.mlp(y, rstd, gate_up, down, eps=EPS)[0].square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(step(h), h)
    (gradient,) = torch.autograd.grad(compiled(h), h)
    torch.testing.assert_close(gradient, expected)
