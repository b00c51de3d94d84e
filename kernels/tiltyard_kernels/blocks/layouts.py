"""From a checkpoint's weights to the blocks' layouts, and back unchanged.

The blocks want what belongs together in neighbouring rows of a weight (columns of its product): gate and up of a
feature, and the two numbers that RoPE rotates. Hugging Face's Llama and Qwen keep gate and up apart and rotate a head's
first half against its second. Permuting the rows of queries and keys alike leaves every attention score as it was.
"""

import torch


def interleave_gate_up(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """(F, D) and (F, D) → (2F, D), rows gate 0, up 0, gate 1, up 1, …"""
    if gate.shape != up.shape:
        raise ValueError(f"gate {tuple(gate.shape)} and up {tuple(up.shape)} differ in shape")
    return torch.stack((gate, up), dim=1).flatten(0, 1)


def split_gate_up(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The inverse: gate and up, contiguous."""
    return weight[0::2].contiguous(), weight[1::2].contiguous()


def pair_rotary(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of each head from (first half, second half) to pairs: 0, h/2, 1, h/2 + 1, … for h = head_dim."""
    _check_heads(weight, head_dim)
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).reshape(weight.shape)  # type: ignore[no-untyped-call,no-any-return]


def unpair_rotary(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """The inverse of `pair_rotary`."""
    _check_heads(weight, head_dim)
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).reshape(weight.shape)  # type: ignore[no-untyped-call,no-any-return]


def _check_heads(weight: torch.Tensor, head_dim: int) -> None:
    if head_dim % 2 or weight.shape[0] % head_dim:
        raise ValueError(f"{weight.shape[0]} rows are no whole number of heads of the even size {head_dim}")


def fold_gain(weight: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """A norm's weight (D,) folded into the linear (N, D) after it. Autograd gives both their gradients."""
    return (weight.float() * gain.float()).to(weight.dtype)
