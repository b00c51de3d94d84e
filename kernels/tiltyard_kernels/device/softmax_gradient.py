"""From logits to their cross-entropy gradient, in place: one pass over a chunk, one program a row."""

import triton
import triton.language as tl


@triton.jit
def softmax_gradient_kernel(
    logits,  # (rows, V), overwritten
    stride,
    labels,  # (rows,)
    lse,  # (rows,) float32, log Σ exp of each row
    weight,  # (rows,) float32, what each row counts for in the loss; 0 where ignored
    entropy,  # (rows,) float32, written
    V,
    smoothing,
    z_loss,
    cap,
    HAS_CAP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    base = logits + row.to(tl.int64) * stride
    label = tl.load(labels + row)
    total = tl.load(lse + row)
    scale = tl.load(weight + row)
    expected = tl.zeros((BLOCK,), tl.float32)  # Σ p · logit, by lane
    for start in range(0, V, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < V
        logit = tl.load(base + columns, mask=inside, other=float("-inf")).to(tl.float32)
        p = tl.exp(logit - total)
        expected += tl.where(inside, p * logit, 0.0)
        gradient = p * (1.0 + 2.0 * z_loss * total) - smoothing / V
        gradient = tl.where(columns == label, gradient - (1.0 - smoothing), gradient)
        if HAS_CAP:
            gradient = gradient * (1.0 - (logit / cap) * (logit / cap))
        tl.store(base + columns, (gradient * scale).to(logits.dtype.element_ty), mask=inside)
    tl.store(entropy + row, total - tl.sum(expected, 0))
