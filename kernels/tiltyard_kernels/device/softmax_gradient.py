"""From logits to their cross-entropy gradient, in place, one program a row. And the gradients' scaling."""

import triton
import triton.language as tl


@triton.jit
def softmax_gradient_kernel(
    logits,  # (rows, V), overwritten
    stride,
    labels,  # (rows,)
    weight,  # (rows,) float32, what each row counts for in the loss; 0 where ignored
    lse,  # (rows,) float32, and so the next three, written: log Σ exp of each row,
    picked,  # the label's logit, 0 where it is no column,
    total,  # if HAS_TOTAL: Σ of the row,
    entropy,
    V,
    smoothing,
    z_loss,
    cap,
    HAS_TOTAL: tl.constexpr,
    HAS_CAP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row is read twice; the second time it comes from the L2 cache, where the rows under way fit."""
    row = tl.program_id(0)
    base = logits + row.to(tl.int64) * stride
    label = tl.load(labels + row)
    label_logit = tl.load(base + label, mask=(label >= 0) & (label < V), other=0.0).to(tl.float32)
    largest = float("-inf")
    mass = tl.zeros((BLOCK,), tl.float32)  # Σ exp(logit − largest), by lane
    expected = tl.zeros((BLOCK,), tl.float32)  # Σ exp(logit − largest) · logit
    plain = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, V, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < V
        logit = tl.load(base + columns, mask=inside, other=float("-inf")).to(tl.float32)
        new = tl.maximum(largest, tl.max(logit, 0))
        kept = tl.exp(largest - new)
        share = tl.exp(logit - new)
        finite = tl.where(inside, logit, 0.0)
        mass = mass * kept + share
        expected = expected * kept + share * finite
        if HAS_TOTAL:
            plain += finite
        largest = new
    sum_of_mass = tl.sum(mass, 0)
    found = largest + tl.log(sum_of_mass)
    tl.store(lse + row, found)
    tl.store(picked + row, label_logit)
    tl.store(entropy + row, found - tl.sum(expected, 0) / sum_of_mass)
    if HAS_TOTAL:
        tl.store(total + row, tl.sum(plain, 0))
    scale = tl.load(weight + row)
    for start in range(0, V, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < V
        logit = tl.load(base + columns, mask=inside, other=float("-inf")).to(tl.float32)
        gradient = tl.exp(logit - found) * (1.0 + 2.0 * z_loss * found) - smoothing / V
        gradient = tl.where(columns == label, gradient - (1.0 - smoothing), gradient)
        if HAS_CAP:
            gradient = gradient * (1.0 - (logit / cap) * (logit / cap))
        tl.store(base + columns, (gradient * scale).to(logits.dtype.element_ty), mask=inside)


@triton.jit
def scale_kernel(x, factor, COUNT, BLOCK: tl.constexpr):
    """x · factor, in place, of COUNT numbers end to end. Where the factor is 1, nothing is read: a loss is mostly the
    root of its gradient, and looking at the factor from the host would wait for the GPU."""
    by = tl.load(factor).to(tl.float32)
    if by == 1.0:
        return
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < COUNT, other=0.0)
    tl.store(x + at, (value.to(tl.float32) * by).to(x.dtype.element_ty), mask=at < COUNT)
