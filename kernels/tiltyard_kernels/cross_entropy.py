"""LM head and cross-entropy without the logits of a whole batch.

Rows go in chunks whose logits fit in `CHUNK_BYTES`. For a chunk, one GEMM makes the logits; one kernel finds their
log-sum-exp and turns them into their gradient in place; a second GEMM makes dx and, if the head is trained, a third
accumulates dW. So the forward does the backward's work too, three products in all (two with a frozen head), and the
backward only scales what is there, and nothing where the loss's own gradient is 1. Without gradients the logits are
never written: an epilogue's reductions are all.

After Liger's fused linear cross-entropy (arXiv 2410.10989) and Cut Cross-Entropy (arXiv 2411.09009). The z-loss is
PaLM's (arXiv 2204.02311), the soft cap Gemma 2's (arXiv 2408.00118).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from tiltyard_kernels.epilogue import (
    Epilogue,
    Value,
    column_index,
    epilogue,
    per_row,
    row_logsumexp,
    row_sum,
    scalar,
    store,
    tanh,
    tile,
    where,
)
from tiltyard_kernels.gemm import gemm
from tiltyard_kernels.gemm.execute import runs_in_triton
from tiltyard_kernels.gemm.ops import _store, runs_directly

# At most this much memory beside the gradients. Fewer, larger chunks read and write dW less often.
CHUNK_BYTES = 512 << 20


@dataclass(frozen=True)
class HeadLoss:
    """loss () float32, differentiable; for every row, float32 without gradient: logprobs of the labels (0 where
    ignored), and entropy of the prediction (None unless gradients were needed, when it costs nothing)."""

    loss: torch.Tensor
    logprobs: torch.Tensor
    entropy: torch.Tensor | None


def linear_cross_entropy(
    x: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
) -> HeadLoss:
    """Cross-entropy of softmax(x · weightᵀ) with `labels`, as `torch.nn.functional.cross_entropy` defines it.

    x (T, H) and weight (V, H) of one dtype; labels (T,) integers in [0, V) or `ignore_index`. `z_loss` adds
    z_loss · logsumexp² to each row; `softcap` bounds logits by cap · tanh(logit / cap). The mean is over rows that are
    not ignored, and 0 if there are none. Differentiable in x and, unless frozen, weight; dW is accumulated over the
    chunks in weight's dtype, and the backward multiplies finished gradients by the loss's own: one more rounding each,
    unless that is a power of two.
    """
    _check(x, weight, labels, ignore_index, label_smoothing, softcap, reduction)
    with_gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    loss, logprobs, entropy, _dx, _dw = _head_loss(
        x,
        weight,
        labels,
        ignore_index,
        label_smoothing,
        z_loss,
        softcap or 0.0,
        reduction == "mean",
        with_gradient,
        with_gradient and weight.requires_grad,
    )
    return HeadLoss(loss, logprobs, entropy if with_gradient else None)


def linear_cross_entropy_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """The loss in plain PyTorch, differentiable."""
    logits = x @ weight.t()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    rows = torch.nn.functional.cross_entropy(
        logits, labels, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"
    )
    is_valid = labels != ignore_index
    total = (rows + z_loss * logits.logsumexp(1).square() * is_valid).sum()
    return total / is_valid.sum().clamp_min(1) if reduction == "mean" else total


def _check(  # noqa: PLR0917  # the public function's arguments
    x: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int,
    label_smoothing: float,
    softcap: float | None,
    reduction: str,
) -> None:
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"x {tuple(x.shape)} and weight {tuple(weight.shape)} must be (T, H) and (V, H)")
    if labels.shape != x.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels are {tuple(labels.shape)} of {labels.dtype}; they must be ({x.shape[0]},) integers")
    if 0 <= ignore_index < weight.shape[0]:
        raise ValueError(f"ignore_index {ignore_index} is also a token; choose a negative one")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must be at least 0 and below 1")
    if softcap is not None and softcap <= 0:
        raise ValueError(f"softcap is {softcap}; it must be above 0")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; it must be mean or sum")


@cache
def _program(*, is_capped: bool, is_summed: bool) -> Epilogue:
    """Logits' reductions, without the logits: log-sum-exp, the label's logit, and with `is_summed` a row's sum."""

    def reductions(logits: Value, label: Value) -> dict[str, Value]:
        found = {"lse": logits, "picked": where(column_index(logits) == label, logits, 0.0)}
        return found | ({"total": logits} if is_summed else {})

    def head(acc: Value, label: Value) -> Mapping[str, Value]:
        return reductions(acc, label)

    def capped_head(acc: Value, label: Value, cap: Value) -> Mapping[str, Value]:
        return reductions(cap * tanh(acc / cap), label)

    loads = {"label": per_row(integer=True)} | ({"cap": scalar()} if is_capped else {})
    stores = {"lse": row_logsumexp(), "picked": row_sum()} | ({"total": row_sum()} if is_summed else {})
    return epilogue(loads=loads, stores=stores)(capped_head if is_capped else head)


# Registered now, and not under torch.compile's tracing.
for _is_capped in (False, True):
    for _is_summed in (False, True):
        _program(is_capped=_is_capped, is_summed=_is_summed)


@epilogue(loads={"cap": scalar()}, stores={"out": store()})
def _capped(acc: Value, cap: Value) -> Mapping[str, Value]:
    return {"out": cap * tanh(acc / cap)}


@epilogue(loads={"share": per_row()}, stores={"out": store()})
def _scaled(acc: Value, share: Value) -> Mapping[str, Value]:
    return {"out": acc * share}


@epilogue(loads={"before": tile(), "share": per_row()}, stores={"out": store()})
def _accumulated(acc: Value, before: Value, share: Value) -> Mapping[str, Value]:
    return {"out": before + acc * share}


@torch.library.custom_op("tiltyard::head_loss", mutates_args=())
def _head_loss(  # noqa: PLR0917  # a torch operator's schema
    x: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int,
    smoothing: float,
    z_loss: float,
    cap: float,
    is_mean: bool,
    with_gradient: bool,
    trains_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, logprobs, entropy, dx, dw); the last three empty where they are not asked for."""
    x = x.contiguous()
    rows, vocabulary = x.shape[0], weight.shape[0]
    is_valid = labels != ignore_index
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    counted = is_valid.to(wide)
    share = 1 / counted.sum().clamp_min(1) if is_mean else torch.ones((), dtype=wide, device=x.device)
    # The gradient of the logits is stored as p − onehot, and the mean's share applied to the products' accumulators: in
    # float16, p divided by thousands of rows would be lost.
    x_share, w_share = share.expand(rows).contiguous(), share.expand(vocabulary).contiguous()
    capped: dict[str, Any] = {"cap": cap} if cap > 0 else {}
    dx = torch.empty_like(x) if with_gradient else x.new_empty(0)
    dw = torch.empty_like(weight) if trains_weight else x.new_empty(0)
    losses, logprobs = x.new_zeros(rows, dtype=wide), x.new_zeros(rows, dtype=wide)
    entropy = x.new_zeros(rows if with_gradient else 0, dtype=wide)
    size = max(1, CHUNK_BYTES // max(1, vocabulary * x.element_size())) if with_gradient else max(1, rows)
    size = size // 128 * 128 or size
    for start in range(0, rows, size):
        chunk = slice(start, min(start + size, rows))
        if with_gradient:
            logits = gemm(x[chunk], weight.t(), _capped if capped else _store, **capped)["out"]
            lse, picked, total, entropy[chunk] = _to_gradient(
                logits, labels[chunk], counted[chunk], smoothing, z_loss, cap
            )
            gemm(logits, weight, _scaled, share=x_share[chunk], into={"out": dx[chunk]})
            if trains_weight and start == 0:
                gemm(logits.t(), x[chunk], _scaled, share=w_share, into={"out": dw})
            elif trains_weight:
                gemm(logits.t(), x[chunk], _accumulated, before=dw, share=w_share, into={"out": dw})
            del logits  # before the next chunk's are made
        else:
            program = _program(is_capped=cap > 0, is_summed=smoothing > 0)
            made = gemm(x[chunk], weight.t(), program, label=labels[chunk], **capped)
            lse, picked, total = made["lse"], made["picked"], made.get("total")
        target = picked if total is None else (1 - smoothing) * picked + smoothing / vocabulary * total
        losses[chunk] = (lse - target + z_loss * lse.square()) * counted[chunk] * share
        logprobs[chunk] = torch.where(is_valid[chunk], picked - lse, 0)
    if trains_weight and rows == 0:
        dw.zero_()
    return losses.sum(), logprobs, entropy, dx, dw


def _to_gradient(  # noqa: PLR0917  # the loss's own terms
    logits: torch.Tensor,
    labels: torch.Tensor,
    counted: torch.Tensor,
    smoothing: float,
    z_loss: float,
    cap: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Overwrite `logits` with the loss's gradient. Each row's log-sum-exp, label's logit, sum if smoothed, and entropy.

    All are taken over the logits as they were rounded: a softmax of these by the sum of unrounded ones does not add up
    to 1, which cost 15 % more error in the gradients.
    """
    rows, vocabulary = logits.shape
    if runs_in_triton(logits) and counted.dtype == torch.float32:
        from tiltyard_kernels.device.softmax_gradient import softmax_gradient_kernel  # noqa: PLC0415  # only there

        lse, picked, entropy = (torch.empty_like(counted) for _ in range(3))
        total = torch.empty_like(counted) if smoothing else None
        softmax_gradient_kernel[(rows,)](
            logits,
            logits.stride(0),
            labels.contiguous(),
            counted.contiguous(),
            lse,
            picked,
            total,
            entropy,
            vocabulary,
            float(smoothing),
            float(z_loss),
            float(cap),
            HAS_TOTAL=total is not None,
            HAS_CAP=cap > 0,
            BLOCK=4096 if logits.is_cuda else 64,
            num_warps=8,
        )
        return lse, picked, total, entropy
    wide = logits.to(counted.dtype)
    lse = wide.logsumexp(1)
    p = torch.exp(wide - lse[:, None])
    entropy = lse - (p * wide).sum(1)
    is_token = (labels >= 0) & (labels < vocabulary)
    places = torch.where(is_token, labels, 0).long()[:, None]
    picked = torch.where(is_token, wide.gather(1, places)[:, 0], 0)
    total = wide.sum(1) if smoothing else None
    p = p * (1 + 2 * z_loss * lse)[:, None] - smoothing / vocabulary
    p.scatter_add_(1, places, ((smoothing - 1) * is_token.to(p.dtype))[:, None])
    if cap > 0:
        p *= 1 - (wide / cap).square()
    logits.copy_(p * counted[:, None])
    return lse, picked, total, entropy


@_head_loss.register_fake
def _(x: Any, weight: Any, labels: Any, *settings: Any) -> Any:  # noqa: ARG001  # the operator's signature
    with_gradient, trains_weight = settings[-2:]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    rows = x.shape[0]
    return (
        x.new_empty((), dtype=wide),
        x.new_empty(rows, dtype=wide),
        x.new_empty(rows if with_gradient else 0, dtype=wide),
        torch.empty_like(x) if with_gradient else x.new_empty(0),
        torch.empty_like(weight) if trains_weight else x.new_empty(0),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)  # zeros for dw, which nothing differentiates, would be as large as dw
    ctx.with_gradient, ctx.trains_weight = inputs[-2:]
    ctx.save_for_backward(output[3], output[4])


def _scale(ctx: Any, dloss: torch.Tensor | None, *_others: Any) -> tuple[torch.Tensor | None, ...]:
    if dloss is None:
        return (None,) * 10
    dx, dw = ctx.saved_tensors
    scaled_x = _scaled_gradient(dx, dloss) if ctx.with_gradient else None
    scaled_w = _scaled_gradient(dw, dloss) if ctx.trains_weight else None
    return scaled_x, scaled_w, *([None] * 8)


def _scaled_gradient(gradient: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """gradient · factor; in the gradient's own memory where this backward is the last that sees it."""
    gradient = gradient.detach()  # as an output of the operator it would bring the graph along
    is_last = not torch._C._autograd._get_current_graph_task_keep_graph()
    if not (is_last and gradient.numel() and gradient.dtype != torch.float64 and runs_directly([gradient, factor])):
        return gradient * factor.to(gradient.dtype)
    from tiltyard_kernels.device.softmax_gradient import scale_kernel  # noqa: PLC0415  # only where Triton is there

    block = 4096 if gradient.is_cuda else 256
    scale_kernel[(-(-gradient.numel() // block),)](gradient, factor, gradient.numel(), BLOCK=block, num_warps=8)
    return gradient


_head_loss.register_autograd(_scale, setup_context=_keep)
