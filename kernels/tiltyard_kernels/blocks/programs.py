"""The epilogues of a transformer block, forward and backward.

The algebra is CODA's (arXiv 2605.19269). RMSNorm's row scale commutes with the product that follows it: with the
norm's weight folded into W, norm(h) · Wᵀ = rstd ⊙ (h · Wᵀ), so the GEMM that makes h emits Σ h² and the next one
applies rstd to its rows. Backward, for z = rstd ⊙ (h · Wᵀ), D columns in h and c = Σ z·dz over a row:

    dh = rstd ⊙ (dz · W) − (rstd² · c / D) ⊙ h

so c is a row reduction of the program that makes dz, and the rest is an epilogue of dz · W.

Columns of gate and up, and the two halves of each rotary pair, are interleaved: see `layouts`.
"""

from collections.abc import Callable, Mapping

from tiltyard_kernels.epilogue import (
    Epilogue,
    Value,
    column_index,
    column_sum,
    epilogue,
    gelu_tanh,
    group_broadcast,
    group_sum,
    interleave,
    pairs,
    per_column,
    per_row,
    periodic_tile,
    row_rstd,
    row_sum,
    rsqrt,
    scalar,
    sigmoid,
    silu,
    store,
    tanh,
    tile,
    where,
)

Results = Mapping[str, Value]


@epilogue(loads={"residual": tile(), "eps": scalar()}, stores={"out": store(), "rstd": row_rstd("eps")})
def residual_norm(acc: Value, residual: Value, eps: Value) -> Results:  # noqa: ARG001  # for the reduction
    """A block's last linear: add the residual stream, and emit the statistic of the RMSNorm that comes next."""
    y = acc + residual
    return {"out": y, "rstd": y * y}


@epilogue(loads={"rstd": per_row()}, stores={"z": store(), "activated": store(width=0.5)})
def swiglu(acc: Value, rstd: Value) -> Results:
    """Gate and up, interleaved, of a deferred norm: silu(gate) · up, and z for the backward."""
    z = acc * rstd
    gate, up = pairs(z)
    return {"z": z, "activated": silu(gate) * up}


@epilogue(loads={"rstd": per_row()}, stores={"z": store(), "activated": store(width=0.5)})
def geglu(acc: Value, rstd: Value) -> Results:
    """The same with GELU's tanh form, as Gemma has it."""
    z = acc * rstd
    gate, up = pairs(z)
    return {"z": z, "activated": gelu_tanh(gate) * up}


@epilogue(loads={"rstd": per_row()}, stores={"activated": store(width=0.5)})
def swiglu_alone(acc: Value, rstd: Value) -> Results:
    """`swiglu` where no backward follows: z, twice the activated product's size, is not written."""
    gate, up = pairs(acc * rstd)
    return {"activated": silu(gate) * up}


@epilogue(loads={"rstd": per_row()}, stores={"activated": store(width=0.5)})
def geglu_alone(acc: Value, rstd: Value) -> Results:
    """`geglu` where no backward follows."""
    gate, up = pairs(acc * rstd)
    return {"activated": gelu_tanh(gate) * up}


@epilogue(stores={"z": store(), "activated": store(width=0.5)})
def gated(acc: Value) -> Results:
    """`swiglu` after a norm that was applied before the product."""
    gate, up = pairs(acc)
    return {"z": acc, "activated": silu(gate) * up}


@epilogue(stores={"activated": store(width=0.5)})
def gated_alone(acc: Value) -> Results:
    """The same where no backward follows."""
    gate, up = pairs(acc)
    return {"activated": silu(gate) * up}


@epilogue(stores={"z": store(), "activated": store(width=0.5)})
def gated_gelu(acc: Value) -> Results:
    """`geglu` after a norm that was applied before the product."""
    gate, up = pairs(acc)
    return {"z": acc, "activated": gelu_tanh(gate) * up}


@epilogue(stores={"activated": store(width=0.5)})
def gated_gelu_alone(acc: Value) -> Results:
    """The same where no backward follows."""
    gate, up = pairs(acc)
    return {"activated": gelu_tanh(gate) * up}


@epilogue(loads={"residual": tile()}, stores={"out": store()})
def residual(acc: Value, residual: Value) -> Results:
    """A block's last linear: add the residual stream."""
    return {"out": acc + residual}


@epilogue(loads={"bias": per_column()}, stores={"out": store()})
def biased(acc: Value, bias: Value) -> Results:
    """A linear with a bias."""
    return {"out": acc + bias}


@epilogue(loads={"factor": per_column()}, stores={"out": store()})
def scaled_columns(acc: Value, factor: Value) -> Results:
    """Each column times its own number: DoRA's magnitude over the norm."""
    return {"out": acc * factor}


def _silu_and_slope(gate: Value) -> tuple[Value, Value]:
    s = sigmoid(gate)
    activated = gate * s
    return activated, s + activated * (1.0 - s)


def _gelu_and_slope(gate: Value) -> tuple[Value, Value]:
    inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
    t = tanh(inner)
    slope = 0.5 * (1.0 + t) + 0.5 * gate * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 3.0 * 0.044715 * gate * gate)
    return 0.5 * gate * (1.0 + t), slope


def _gated_backward(name: str, activation: Callable[[Value], tuple[Value, Value]]) -> Epilogue:
    """acc is the gradient of the activated product: emit dz, the recomputed product for dW, and Σ z·dz."""

    def program(acc: Value, z: Value) -> Results:
        gate, up = pairs(z)
        activated, slope = activation(gate)
        dgate, dup = acc * up * slope, acc * activated
        return {"dz": interleave(dgate, dup), "activated": activated * up, "dot": gate * dgate + up * dup}

    program.__name__ = name
    return epilogue(loads={"z": tile(width=2)}, stores={"dz": store(width=2), "activated": store(), "dot": row_sum()})(
        program
    )


swiglu_backward = _gated_backward("swiglu_backward", _silu_and_slope)
geglu_backward = _gated_backward("geglu_backward", _gelu_and_slope)


# What the backward of a deferred norm reads: the stream, its rstd, Σ z · dz of each row, and D.
_NORM = {"h": tile(), "rstd": per_row(), "dot": per_row(), "size": scalar()}
_STREAM = {"dy": tile()}
_GAIN = {"gain": per_column()}


def _through_norm(dx: Value, h: Value, rstd: Value, dot: Value, size: Value) -> Value:
    """dh of x = rstd ⊙ h, whose Σ x · dx over a row is `dot`."""
    return rstd * dx - rstd * rstd * dot / size * h


@epilogue(loads=_NORM | _STREAM, stores={"dh": store()})
def norm_backward(  # noqa: PLR0917  # the operands it has
    acc: Value, h: Value, rstd: Value, dot: Value, size: Value, dy: Value
) -> Results:
    """acc is dz · W: the gradient through the deferred norm, joined to the residual's own."""
    return {"dh": dy + _through_norm(acc, h, rstd, dot, size)}


@epilogue(loads=_NORM | _STREAM, stores={"dh": store(), "normed": store()})
def norm_backward_trained(  # noqa: PLR0917  # as above
    acc: Value, h: Value, rstd: Value, dot: Value, size: Value, dy: Value
) -> Results:
    """The same with what trained weights need: normed = rstd ⊙ h for dW."""
    return {"dh": dy + _through_norm(acc, h, rstd, dot, size), "normed": rstd * h}


@epilogue(loads=_NORM, stores={"dh": store()})
def norm_backward_alone(acc: Value, h: Value, rstd: Value, dot: Value, size: Value) -> Results:
    """`norm_backward` without a residual beside it."""
    return {"dh": _through_norm(acc, h, rstd, dot, size)}


@epilogue(loads=_NORM, stores={"dh": store(), "normed": store()})
def norm_backward_alone_trained(acc: Value, h: Value, rstd: Value, dot: Value, size: Value) -> Results:
    """And with rstd ⊙ h for dW."""
    return {"dh": _through_norm(acc, h, rstd, dot, size), "normed": rstd * h}


@epilogue(loads=_NORM | _GAIN | _STREAM, stores={"dh": store()})
def gained_norm_backward(  # noqa: PLR0917  # as above
    acc: Value, h: Value, rstd: Value, dot: Value, size: Value, gain: Value, dy: Value
) -> Results:
    """`norm_backward` where the norm's weight is not folded into the linear."""
    return {"dh": dy + _through_norm(gain * acc, h, rstd, dot, size)}


@epilogue(loads=_NORM | _GAIN, stores={"dh": store()})
def gained_norm_backward_alone(  # noqa: PLR0917  # as above
    acc: Value, h: Value, rstd: Value, dot: Value, size: Value, gain: Value
) -> Results:
    """The same without a residual beside it."""
    return {"dh": _through_norm(gain * acc, h, rstd, dot, size)}


@epilogue(loads=_NORM | _GAIN, stores={"dh": store(), "dgain": column_sum()})
def gained_norm_backward_alone_trained(  # noqa: PLR0917  # as above
    acc: Value, h: Value, rstd: Value, dot: Value, size: Value, gain: Value
) -> Results:
    """And with the gradient of the norm's weight."""
    return {"dh": _through_norm(gain * acc, h, rstd, dot, size), "dgain": rstd * h * acc}


@epilogue(loads=_NORM | _GAIN | _STREAM, stores={"dh": store(), "dgain": column_sum()})
def gained_norm_backward_trained(  # noqa: PLR0917  # as above
    acc: Value, h: Value, rstd: Value, dot: Value, size: Value, gain: Value, dy: Value
) -> Results:
    """With the residual and the gradient of the norm's weight."""
    return {"dh": dy + _through_norm(gain * acc, h, rstd, dot, size), "dgain": rstd * h * acc}


def _rotated(x: Value, cos: Value, sin: Value) -> Value:
    even, odd = pairs(x)
    return interleave(even * cos - odd * sin, even * sin + odd * cos)


def rotary(head_dim: int) -> Epilogue:
    """The QKV projection of a deferred norm, with RoPE on the columns before `rotated`: queries, then keys."""

    def qkv_rotary(acc: Value, rstd: Value, cos: Value, sin: Value, rotated: Value) -> Results:
        z = acc * rstd
        return {"out": where(column_index(z) < rotated, _rotated(z, cos, sin), z)}

    table = periodic_tile(head_dim // 2, width=0.5)
    loads = {"rstd": per_row(), "cos": table, "sin": table, "rotated": scalar()}
    return epilogue(loads=loads, stores={"out": store()})(qkv_rotary)


def normed_rotary(head_dim: int) -> Epilogue:
    """The same with an RMSNorm of each query and key head before its rotation (Qwen 3's qk-norm); keeps z.

    `gain` has a weight for every column: the norms' weights repeated for each head, anything for the values.
    """

    def qkv_normed_rotary(  # noqa: PLR0917  # the operands it has
        acc: Value, rstd: Value, cos: Value, sin: Value, gain: Value, rotated: Value, eps: Value
    ) -> Results:
        z = acc * rstd
        head_rstd = rsqrt(group_sum(z * z, head_dim) / float(head_dim) + eps)
        normed = z * group_broadcast(head_rstd, head_dim) * gain
        return {"out": where(column_index(z) < rotated, _rotated(normed, cos, sin), z), "z": z}

    table = periodic_tile(head_dim // 2, width=0.5)
    loads = {"rstd": per_row(), "cos": table, "sin": table, "gain": per_column(), "rotated": scalar(), "eps": scalar()}
    return epilogue(loads=loads, stores={"out": store(), "z": store()})(qkv_normed_rotary)
