"""Attention over packed documents against plain PyTorch, document by document."""

import pytest
import torch
from kernel_errors import assert_close, assert_gradients_close

from tiltyard_kernels.attention import packed_attention, packed_attention_reference

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]


def inputs(
    lengths: list[int], *, heads: int, kv_heads: int, size: int, dtype: torch.dtype, device: torch.device
) -> tuple[list[torch.Tensor], torch.Tensor]:
    tokens = sum(lengths)
    shapes = [(tokens, count, size) for count in (heads, kv_heads, kv_heads)]
    made = [torch.randn(shape, device=device).to(dtype).requires_grad_() for shape in shapes]
    bounds = torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)
    return made, bounds


@pytest.mark.parametrize(
    ("lengths", "heads", "kv_heads", "size"),
    [([33, 1, 6], 1, 1, 16), ([9, 0, 35], 2, 1, 24), ([20, 13], 1, 1, 80), ([18], 1, 1, 256)],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_backward(  # noqa: PLR0917  # its parameters
    lengths: list[int], heads: int, kv_heads: int, size: int, dtype: torch.dtype, device: torch.device
) -> None:
    leaves, bounds = inputs(lengths, heads=heads, kv_heads=kv_heads, size=size, dtype=dtype, device=device)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    scale = size**-0.5
    o = packed_attention(*leaves, bounds)
    truth = packed_attention_reference(*wide, bounds, scale=scale)
    peer = packed_attention_reference(*leaves, bounds, scale=scale)
    assert_close(o, truth, peer=peer)
    do = torch.randn_like(truth)
    got, peers = (torch.autograd.grad(out, leaves, do.to(dtype)) for out in (o, peer))
    assert_gradients_close(got, torch.autograd.grad(truth, wide, do), peers)


def test_heads_side_by_side_in_one_matrix(device: torch.device) -> None:
    """Queries, keys and values as the QKV product leaves them: views with long rows."""
    qkv = torch.randn(30, 4 * 16, device=device)
    q, k, v = (part.view(30, -1, 16) for part in qkv.split([32, 16, 16], 1))
    bounds = torch.tensor([0, 12, 30], device=device)
    truth = packed_attention_reference(q.double(), k.double(), v.double(), bounds, scale=0.25)
    assert_close(packed_attention(q, k, v, bounds), truth)
    turned = q.transpose(0, 1).contiguous().transpose(0, 1)
    assert_close(packed_attention(turned, k, v, bounds, scale=0.25), truth)


def test_nothing_to_attend_to(device: torch.device) -> None:
    empty, bounds = torch.zeros(0, 2, 16, device=device), torch.zeros(1, dtype=torch.int32, device=device)
    assert packed_attention(empty, empty, empty, bounds).shape == (0, 2, 16)


def test_whole_under_torch_compile(device: torch.device) -> None:
    leaves, bounds = inputs([9, 4], heads=2, kv_heads=1, size=16, dtype=torch.float32, device=device)

    def step(*qkv: torch.Tensor) -> torch.Tensor:
        return packed_attention(*qkv, bounds).square().sum()  # type: ignore[misc]

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for got, expected in zip(*(torch.autograd.grad(f(*leaves), leaves) for f in (compiled, step)), strict=True):
        assert torch.equal(got, expected)


def test_bad_inputs_are_named(device: torch.device) -> None:
    q, k, bounds = torch.ones(4, 3, 16), torch.ones(4, 2, 16), torch.tensor([0, 4])
    with pytest.raises(ValueError, match="3 query heads cannot share 2 key heads"):
        packed_attention(q, k, k, bounds)
    with pytest.raises(ValueError, match="heads are of size 512"):
        packed_attention(torch.ones(4, 1, 512), torch.ones(4, 1, 512), torch.ones(4, 1, 512), bounds)
    with pytest.raises(ValueError, match="cu_seqlens is"):
        packed_attention(q, q, q, bounds.float())
