"""How far a kernel may be from the truth: no more than PyTorch in the same type, and ten per cent."""

import math
from collections.abc import Sequence

import torch


def relative_error(value: torch.Tensor, truth: torch.Tensor) -> float:
    """‖value − truth‖ / ‖truth‖ in float64; infinite for NaN or for another shape."""
    assert value.shape == truth.shape, f"{tuple(value.shape)} is not {tuple(truth.shape)}"
    value, truth = value.detach(), truth.detach()
    difference = (value.double() - truth.double()).norm()
    error = float(difference / truth.double().norm().clamp_min(1e-30))
    return float("inf") if math.isnan(error) else error


def assert_gradients_close(
    values: Sequence[torch.Tensor], truths: Sequence[torch.Tensor], peers: Sequence[torch.Tensor]
) -> None:
    """Taken together, `values` are as near to `truths` as PyTorch's own `peers`, within 10 %.

    Together, since of few numbers a single gradient's error scatters by more than that; none is half as far again.
    """
    mine, its = ([relative_error(g, t) for g, t in zip(some, truths, strict=True)] for some in (values, peers))
    slack = ROUNDING[values[0].dtype] / 4
    assert math.hypot(*mine) <= 1.1 * math.hypot(*its) + slack, (mine, its)
    assert max(mine) <= 1.5 * max(its) + slack, (mine, its)


ROUNDING = {torch.float64: 1e-14, torch.float32: 2e-6, torch.float16: 6e-4, torch.bfloat16: 5e-3}


def assert_close(value: torch.Tensor, truth: torch.Tensor, peer: torch.Tensor | None = None) -> None:
    """`value` is as near to `truth` as its type allows; as near as `peer`, PyTorch's own, within 10 %, if given."""
    error = relative_error(value, truth)
    limit = ROUNDING[value.dtype]
    if peer is not None:
        limit = max(1.1 * relative_error(peer, truth), limit / 4)
    assert error <= limit, f"the relative error is {error:.2e}, above {limit:.2e}"
