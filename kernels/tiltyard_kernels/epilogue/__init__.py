"""The epilogue language: what happens to a GEMM's accumulator before it reaches memory, in a few lines of Python.

    @epilogue(loads={"residual": tile()}, stores={"out": store(), "squares": row_sum()})
    def residual_add(acc, residual):
        y = acc + residual
        return {"out": y, "squares": y * y}

See docs/tutorials/write-an-epilogue.md, and docs/reference/kernels.md for every primitive.
"""

from tiltyard_kernels.epilogue.operands import (
    Load,
    Store,
    amax,
    column_sum,
    per_column,
    per_row,
    periodic_tile,
    row_logsumexp,
    row_max,
    row_rstd,
    row_sum,
    scalar,
    store,
    tile,
)
from tiltyard_kernels.epilogue.program import Epilogue, epilogue
from tiltyard_kernels.epilogue.reference import evaluate
from tiltyard_kernels.epilogue.values import (
    EpilogueError,
    Value,
    absolute,
    cast,
    column_index,
    erf,
    exp,
    gelu_tanh,
    group_broadcast,
    group_sum,
    interleave,
    log,
    maximum,
    minimum,
    pairs,
    relu,
    rsqrt,
    sigmoid,
    silu,
    sqrt,
    tanh,
    where,
)

__all__ = [
    "Epilogue",
    "EpilogueError",
    "Load",
    "Store",
    "Value",
    "absolute",
    "amax",
    "cast",
    "column_index",
    "column_sum",
    "epilogue",
    "erf",
    "evaluate",
    "exp",
    "gelu_tanh",
    "group_broadcast",
    "group_sum",
    "interleave",
    "log",
    "maximum",
    "minimum",
    "pairs",
    "per_column",
    "per_row",
    "periodic_tile",
    "relu",
    "row_logsumexp",
    "row_max",
    "row_rstd",
    "row_sum",
    "rsqrt",
    "scalar",
    "sigmoid",
    "silu",
    "sqrt",
    "store",
    "tanh",
    "tile",
    "where",
]
