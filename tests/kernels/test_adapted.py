"""A decoder layer's fused parts with adapters, in the interpreter, against plain PyTorch in float64."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from kernel_errors import assert_close, assert_gradients_close

from tiltyard_kernels.blocks.adapted import norm_mlp, norm_qkv, residual_linear
from tiltyard_kernels.blocks.adapters import Adapter, join_adapters
from tiltyard_kernels.blocks.heads import HeadNorm, norm_heads, norm_heads_backward
from tiltyard_kernels.blocks.rows import rms_norm, rotate_back, rotate_half

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
M, D, F = 21, 32, 40
HEADS, HEAD_DIM = (2, 1, 1), 8  # of queries, keys and values


class Leaves:
    """Random inputs in a type, and the same in float64."""

    def __init__(self, dtype: torch.dtype, device: torch.device, **shapes: tuple[int, ...]) -> None:
        self.used = {
            name: (torch.randn(shape, device=device) / shape[-1] ** 0.5).to(dtype).requires_grad_()
            for name, shape in shapes.items()
        }
        self.wide = {name: value.detach().double().requires_grad_() for name, value in self.used.items()}

    def check(self, run: Callable[..., torch.Tensor], truth: Callable[..., torch.Tensor]) -> None:
        """Values and gradients of `run` are those of `truth` in float64, as near as PyTorch comes in the same type."""
        y, expected, peer = run(**self.used), truth(**self.wide), truth(**self.used)
        assert_close(y, expected, peer=peer)
        dy = torch.randn_like(expected)
        got = torch.autograd.grad(y, list(self.used.values()), dy.to(y.dtype))
        peers = torch.autograd.grad(peer, list(self.used.values()), dy.to(peer.dtype))
        assert_gradients_close(got, torch.autograd.grad(expected, list(self.wide.values()), dy), peers)


def norm(h: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(h, (h.shape[1],), gain, 1e-5)


def rotated(y: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int) -> torch.Tensor:
    half = cos.shape[1]
    left, right = y[:, : heads * 2 * half].unflatten(1, (heads, 2, half)).unbind(2)
    c, s = cos[:, None].to(y.dtype), sin[:, None].to(y.dtype)
    turned = torch.stack((left * c - right * s, right * c + left * s), 2).flatten(1)
    return torch.cat((turned, y[:, heads * 2 * half :]), 1)


@pytest.mark.parametrize("is_adapted", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_and_qkv(dtype: torch.dtype, is_adapted: bool, device: torch.device) -> None:
    rows = [heads * HEAD_DIM for heads in HEADS]
    angle = torch.randn(M, HEAD_DIM // 2, device=device)
    cos, sin = angle.cos(), angle.sin()
    ranks = {"aq": (4, D), "bq": (rows[0], 4), "av": (4, D), "bv": (rows[2], 4)} if is_adapted else {}
    leaves = Leaves(dtype, device, h=(M, D), gain=(D,), w=(sum(rows), D), bias=(sum(rows),), **ranks)

    def run(
        h: torch.Tensor, gain: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, **ab: torch.Tensor
    ) -> torch.Tensor:
        adapters = [[Adapter(ab["aq"], ab["bq"], 0.5)], [], [Adapter(ab["av"], ab["bv"], 2.0)]] if ab else [[]] * 3
        pair = join_adapters(adapters, rows, h.dtype)
        return norm_qkv(h, gain, w, bias, pair, (cos, sin, 3), eps=1e-5)

    def truth(
        h: torch.Tensor, gain: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, **ab: torch.Tensor
    ) -> torch.Tensor:
        x = norm(h, gain)
        y = x @ w.t() + bias
        if ab:
            parts = list(y.split(rows, 1))
            parts[0] = parts[0] + 0.5 * (x @ ab["aq"].t()) @ ab["bq"].t()
            parts[2] = parts[2] + 2.0 * (x @ ab["av"].t()) @ ab["bv"].t()
            y = torch.cat(parts, 1)
        return rotated(y, cos, sin, 3)

    leaves.check(run, truth)


def heads_normed(y: torch.Tensor, gain: torch.Tensor, queries: int, heads: int) -> torch.Tensor:
    size = gain.shape[1]
    parts = y[:, : heads * size].unflatten(1, (heads, size))
    normed = [
        torch.nn.functional.rms_norm(part, (size,), weight, 1e-6)
        for part, weight in zip(parts.split([queries, heads - queries], 1), gain, strict=True)
    ]
    return torch.cat((torch.cat(normed, 1).flatten(1), y[:, heads * size :]), 1)


@pytest.mark.parametrize("head_dim", [8, 12])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_and_qkv_with_head_norms(dtype: torch.dtype, head_dim: int, device: torch.device) -> None:
    rows = [heads * head_dim for heads in HEADS]
    angle = torch.randn(M, head_dim // 2, device=device)
    cos, sin = angle.cos(), angle.sin()
    leaves = Leaves(
        dtype,
        device,
        h=(M, D),
        gain=(D,),
        w=(sum(rows), D),
        bias=(sum(rows),),
        a=(4, D),
        b=(rows[0], 4),
        heads=(2, head_dim),
    )

    def run(
        h: torch.Tensor, gain: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, **more: torch.Tensor
    ) -> torch.Tensor:
        pair = join_adapters([[Adapter(more["a"], more["b"], 0.5)], [], []], rows, h.dtype)
        norm_of_heads = HeadNorm(more["heads"], HEADS[0], 1e-6)
        return norm_qkv(h, gain, w, bias, pair, (cos, sin, 3), eps=1e-5, head_norm=norm_of_heads)

    def truth(
        h: torch.Tensor, gain: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, **more: torch.Tensor
    ) -> torch.Tensor:
        x = norm(h, gain)
        parts = list((x @ w.t() + bias).split(rows, 1))
        parts[0] = parts[0] + 0.5 * (x @ more["a"].t()) @ more["b"].t()
        return rotated(heads_normed(torch.cat(parts, 1), more["heads"], HEADS[0], 3), cos, sin, 3)

    leaves.check(run, truth)


def test_head_norms_go_with_rotary_and_without_dora(device: torch.device) -> None:
    h, gain, w = (torch.randn(*shape, device=device) for shape in ((M, D), (D,), (sum(HEADS) * HEAD_DIM, D)))
    head_norm = HeadNorm(torch.ones(2, HEAD_DIM, device=device), 2, 1e-6)
    with pytest.raises(ValueError, match="together with RoPE"):
        norm_qkv(h, gain, w, None, None, None, eps=1e-5, head_norm=head_norm)
    a, b = torch.randn(4, D, device=device), torch.randn(len(w), 4, device=device)
    joined = join_adapters([[Adapter(a, b, 1.0)]], [len(w)], h.dtype)
    with_dora = dataclasses.replace(joined, magnitude=torch.ones(len(w), device=device))
    table = torch.ones(M, HEAD_DIM // 2, device=device)
    with pytest.raises(ValueError, match="not under DoRA"):
        norm_qkv(h, gain, w, None, with_dora, (table, table, 3), eps=1e-5, head_norm=head_norm)


def test_the_pass_over_heads_says_what_the_norm_before_needs(device: torch.device) -> None:
    """Σ z · dz of a row, the values' columns included; and no gain's gradient where none is asked for."""
    z, dy = torch.randn(5, 4 * HEAD_DIM, device=device), torch.randn(5, 4 * HEAD_DIM, device=device)
    angle = torch.randn(5, HEAD_DIM // 2, device=device)
    head_norm = HeadNorm(torch.randn(2, HEAD_DIM, device=device), 2, 1e-6)
    dz, dot, dgain = norm_heads_backward(dy, z, head_norm, angle.cos(), angle.sin(), 3, needs_gain=False)
    assert dgain is None
    assert_close(dot, (z.double() * dz.double()).sum(1))
    assert torch.equal(dz[:, 3 * HEAD_DIM :], dy[:, 3 * HEAD_DIM :])
    y = norm_heads(z, head_norm, angle.cos(), angle.sin(), 3)
    assert torch.equal(y[:, 3 * HEAD_DIM :], z[:, 3 * HEAD_DIM :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_residual_linear(dtype: torch.dtype, device: torch.device) -> None:
    leaves = Leaves(dtype, device, o=(M, F), w=(D, F), a=(4, F), b=(D, 4), h=(M, D))

    def run(o: torch.Tensor, w: torch.Tensor, a: torch.Tensor, b: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return residual_linear(o, w, None, join_adapters([[Adapter(a, b, 0.5)]], [D], o.dtype), h)

    def truth(o: torch.Tensor, w: torch.Tensor, a: torch.Tensor, b: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return h + o @ w.t() + 0.5 * (o @ a.t()) @ b.t()

    leaves.check(run, truth)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_and_mlp(dtype: torch.dtype, activation: str, device: torch.device) -> None:
    leaves = Leaves(
        dtype,
        device,
        h=(M, D),
        gain=(D,),
        gate=(F, D),
        up=(F, D),
        down=(D, F),
        a=(4, D),
        b=(F, 4),
        a2=(4, F),
        b2=(D, 4),
    )

    def run(h: torch.Tensor, gain: torch.Tensor, **w: torch.Tensor) -> torch.Tensor:
        first = join_adapters([[], [Adapter(w["a"], w["b"], 0.5)]], [F, F], h.dtype, is_interleaved=True)
        second = join_adapters([[Adapter(w["a2"], w["b2"], 2.0)]], [D], h.dtype)
        gate_up = torch.stack((w["gate"], w["up"]), 1).flatten(0, 1)
        return norm_mlp(h, gain, gate_up, w["down"], (first, second), eps=1e-5, activation=activation)

    def truth(h: torch.Tensor, gain: torch.Tensor, **w: torch.Tensor) -> torch.Tensor:
        x = norm(h, gain)
        gate, up = x @ w["gate"].t(), x @ w["up"].t() + 0.5 * (x @ w["a"].t()) @ w["b"].t()
        silu, gelu = torch.nn.functional.silu, torch.nn.functional.gelu
        act = (silu(gate) if activation == "silu" else gelu(gate, approximate="tanh")) * up
        return h + act @ w["down"].t() + 2.0 * (act @ w["a2"].t()) @ w["b2"].t()

    leaves.check(run, truth)


def test_passes_over_rows_in_odd_sizes(device: torch.device) -> None:
    h, gain = torch.randn(5, 70, device=device)[:, :67], torch.randn(67, device=device)
    x, rstd = rms_norm(h, gain, 1e-5, dtype=torch.float32)
    assert_close(x, norm(h.double(), gain.double()))
    assert torch.equal(rms_norm(h, gain, 1e-5, dtype=torch.float32, rstd=rstd)[0], x)
    y, angle = torch.randn(5, 36, device=device), torch.randn(5, 6, device=device)
    turned = rotate_half(y, angle.cos(), angle.sin(), 2)
    assert_close(turned, rotated(y.double(), angle.cos().double(), angle.sin().double(), 2))
    back, dot = rotate_back(turned, turned, angle.cos(), angle.sin(), 2)
    assert_close(back, y.double())
    assert_close(dot, turned.double().square().sum(1))
