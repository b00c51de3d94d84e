"""The values an epilogue program computes with, and the primitives over them.

A program is an ordinary Python function. It runs once, at definition, on `Value`s: each operation adds a node to a
graph, from which `codegen` writes Triton. The same function runs on torch tensors as well: every primitive here takes
either, so a program is its own reference (see `reference`).

A value has an *extent* (a whole tile, one number a row, one a column, or a scalar), a *kind* (float, int or bool) and a
*width*: how many columns it has for each column of the accumulator. `pairs` halves the width, `interleave` doubles it,
`group_sum` divides it by the group's size. Values of different widths do not combine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeVar, overload

import torch

Extent = Literal["tile", "row", "column", "scalar"]
Kind = Literal["float", "int", "bool"]


class EpilogueError(ValueError):
    """A program that is wrong; the message names the operand and says what to do."""


@dataclass(frozen=True, eq=False)
class Value:
    """A node of a program's graph.

    `width` is None for rows and scalars, which fit any tile. `label` is what error messages call it. `static` holds
    what an operation needs besides its arguments: a constant, a group's size.
    """

    op: str
    arguments: tuple[Value, ...] = ()
    extent: Extent = "tile"
    kind: Kind = "float"
    width: Fraction | None = Fraction(1)
    label: str = "value"
    static: tuple[Any, ...] = ()

    @property
    def span(self) -> Fraction:
        """The width of a value that has columns."""
        if self.width is None:
            raise EpilogueError(f"{self.label} has no columns of its own: it is one number a {self.extent}")
        return self.width

    def __bool__(self) -> bool:
        raise EpilogueError(
            f"{self.label} has no truth value while the program is defined: choose with where(condition, a, b)"
        )

    def __add__(self, other: Operand) -> Value:
        return _binary("+", self, other)

    def __radd__(self, other: Operand) -> Value:
        return _binary("+", other, self)

    def __sub__(self, other: Operand) -> Value:
        return _binary("-", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return _binary("-", other, self)

    def __mul__(self, other: Operand) -> Value:
        return _binary("*", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return _binary("*", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return _binary("/", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return _binary("/", other, self)

    def __neg__(self) -> Value:
        return _binary("-", 0.0, self)

    def __lt__(self, other: Operand) -> Value:
        return _binary("<", self, other)

    def __le__(self, other: Operand) -> Value:
        return _binary("<=", self, other)

    def __gt__(self, other: Operand) -> Value:
        return _binary(">", self, other)

    def __ge__(self, other: Operand) -> Value:
        return _binary(">=", self, other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]  # a program compares tiles, not nodes
        return _binary("==", self, other)

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return _binary("!=", self, other)

    def __and__(self, other: Operand) -> Value:
        return _binary("&", self, other)

    def __or__(self, other: Operand) -> Value:
        return _binary("|", self, other)

    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise EpilogueError(
            f"{self.label} has no {name!r}: a program uses operators and the functions of tiltyard_kernels.epilogue"
        )


Operand = Value | float | int
T = TypeVar("T", Value, torch.Tensor)


def constant(number: float) -> Value:
    return Value("constant", extent="scalar", kind="float", width=None, label=repr(number), static=(float(number),))


def _lift(operand: object, other: object) -> Value:
    if isinstance(operand, Value):
        return operand
    if isinstance(operand, bool) or not isinstance(operand, int | float):
        raise EpilogueError(
            f"{getattr(other, 'label', 'a value')} cannot combine with a {type(operand).__name__}: "
            "declare tensors as loads of the program"
        )
    if isinstance(operand, float) and not math.isfinite(operand):
        raise EpilogueError(f"the constant {operand} beside {getattr(other, 'label', 'a value')} is not finite")
    return constant(operand)


def _joined(values: tuple[Value, ...], label: str) -> tuple[Extent, Fraction | None]:
    """The extent and width of an elementwise operation over `values`."""
    wide = [value for value in values if value.width is not None]
    for value in wide[1:]:
        if value.width != wide[0].width:
            raise EpilogueError(
                f"{label}: {wide[0].label} has {_columns(wide[0])} but {value.label} has {_columns(value)}; "
                "bring them together with pairs(), interleave() or group_broadcast()"
            )
    extents = {value.extent for value in values} - {"scalar"}
    width = wide[0].width if wide else None
    if not extents:
        return "scalar", None
    if len(extents) == 1:
        return extents.pop(), width
    return "tile", width


def _columns(value: Value) -> str:
    return {
        Fraction(1): "as many columns as the accumulator",
        Fraction(1, 2): "half the accumulator's columns",
        Fraction(2): "twice the accumulator's columns",
    }.get(value.span, f"{value.width} of the accumulator's columns")


_COMPARISONS = {"<", "<=", ">", ">=", "==", "!="}


def _binary(op: str, left: object, right: object) -> Value:
    a, b = _lift(left, right), _lift(right, left)
    label = f"({a.label} {op} {b.label})"
    extent, width = _joined((a, b), label)
    if op in {"&", "|"}:
        if (a.kind, b.kind) != ("bool", "bool"):
            raise EpilogueError(f"{label}: {op} joins conditions, such as comparisons")
        return Value(op, (a, b), extent, "bool", width, label)
    if "bool" in (a.kind, b.kind):
        raise EpilogueError(f"{label}: a condition cannot be calculated with; use where(condition, a, b)")
    kind: Kind = "bool" if op in _COMPARISONS else "float"
    return Value(op, (a, b), extent, kind, width, label)


def _unary(op: str, x: Value, static: tuple[Any, ...] = ()) -> Value:
    if x.kind != "float":
        raise EpilogueError(f"{op}({x.label}) needs numbers, but {x.label} is of kind {x.kind}")
    return Value(op, (x,), x.extent, "float", x.width, f"{op}({x.label})", static)


def _elementwise(name: str, on_tensor: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[T], T]:
    def primitive(x: T) -> T:
        if isinstance(x, Value):
            return _unary(name, x)
        if isinstance(x, torch.Tensor):
            return on_tensor(x)
        raise EpilogueError(f"{name}() takes a value of the program, not a {type(x).__name__}")

    primitive.__name__ = primitive.__qualname__ = name
    primitive.__doc__ = f"`{name}`, elementwise."
    return primitive


exp = _elementwise("exp", torch.exp)
log = _elementwise("log", torch.log)
sqrt = _elementwise("sqrt", torch.sqrt)
rsqrt = _elementwise("rsqrt", torch.rsqrt)
sigmoid = _elementwise("sigmoid", torch.sigmoid)
tanh = _elementwise("tanh", torch.tanh)
erf = _elementwise("erf", torch.erf)
absolute = _elementwise("absolute", torch.abs)


def relu(x: T) -> T:
    """max(x, 0), elementwise."""
    return maximum(x, 0.0)


def silu(x: T) -> T:
    """x · sigmoid(x), elementwise."""
    return x * sigmoid(x)


def gelu_tanh(x: T) -> T:
    """GELU's tanh form, elementwise (Hendrycks and Gimpel, arXiv 1606.08415)."""
    return 0.5 * x * (1.0 + tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def maximum(x: T, y: T | float) -> T:
    """The larger of two, elementwise."""
    if isinstance(x, Value):
        return _pairwise("maximum", x, y)
    return torch.maximum(x, torch.as_tensor(y, dtype=x.dtype, device=x.device))


def minimum(x: T, y: T | float) -> T:
    """The smaller of two, elementwise."""
    if isinstance(x, Value):
        return _pairwise("minimum", x, y)
    return torch.minimum(x, torch.as_tensor(y, dtype=x.dtype, device=x.device))


def _pairwise(op: str, x: Value, y: object) -> Value:
    other = _lift(y, x)
    label = f"{op}({x.label}, {other.label})"
    extent, width = _joined((x, other), label)
    if "bool" in (x.kind, other.kind):
        raise EpilogueError(f"{label} needs numbers, not a condition")
    return Value(op, (x, other), extent, "float", width, label)


def where(condition: T, x: T | float, y: T | float) -> T:
    """x where the condition holds, else y, elementwise. Both are calculated everywhere."""
    if isinstance(condition, Value):
        a, b = _lift(x, condition), _lift(y, condition)
        label = f"where({condition.label}, {a.label}, {b.label})"
        if condition.kind != "bool":
            raise EpilogueError(f"{label}: {condition.label} is no condition; compare it with something")
        if "bool" in (a.kind, b.kind):
            raise EpilogueError(f"{label} chooses between numbers, not between conditions")
        extent, width = _joined((condition, a, b), label)
        return Value("where", (condition, a, b), extent, "float", width, label)
    return torch.where(condition, x, y)


def cast(x: T, dtype: torch.dtype) -> T:
    """x rounded to `dtype` and widened again: what a reader of the stored value will see."""
    if dtype not in _CASTS:
        raise EpilogueError(f"cast() rounds to {', '.join(str(known) for known in _CASTS)}, not to {dtype}")
    if isinstance(x, Value):
        return _unary("cast", x, (_CASTS[dtype],))
    return x.to(dtype).to(x.dtype)


_CASTS = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
    torch.float8_e4m3fn: "float8e4nv",
}


@overload
def column_index(x: Value) -> Value: ...
@overload
def column_index(x: torch.Tensor) -> torch.Tensor: ...
def column_index(x: Value | torch.Tensor) -> Value | torch.Tensor:
    """The number of each column of `x` in the whole matrix, as integers along a row."""
    if isinstance(x, Value):
        if x.width is None:
            raise EpilogueError(f"column_index({x.label}): it has no columns")
        return Value("column_index", (), "column", "int", x.width, f"column_index({x.label})")
    return torch.arange(x.shape[-1], device=x.device)[None, :]


def _as_tile(x: Value, name: str) -> Value:
    if x.width is None or x.kind != "float":
        raise EpilogueError(f"{name}({x.label}) needs numbers with columns, but {x.label} is one {x.kind} a {x.extent}")
    if x.extent == "tile":
        return x
    return Value("broadcast", (x,), "tile", "float", x.width, x.label)


def pairs(x: T) -> tuple[T, T]:
    """The even and the odd columns of a tile: x[:, 0::2] and x[:, 1::2], each of half the width."""
    if isinstance(x, Value):
        tile = _as_tile(x, "pairs")
        even, odd = (
            Value("pair", (tile,), "tile", "float", tile.span / 2, f"pairs({x.label})[{side}]", (side,))
            for side in (0, 1)
        )
        return even, odd
    return x[..., 0::2], x[..., 1::2]


def interleave(even: T, odd: T) -> T:
    """The inverse of `pairs`: columns even[0], odd[0], even[1], odd[1], …"""
    if isinstance(even, Value):
        if not isinstance(odd, Value):
            raise EpilogueError(f"interleave({even.label}, …) takes two values of the program")
        a, b = _as_tile(even, "interleave"), _as_tile(odd, "interleave")
        label = f"interleave({even.label}, {odd.label})"
        _joined((a, b), label)
        return Value("interleave", (a, b), "tile", "float", a.span * 2, label)
    return torch.stack((even, odd), dim=-1).flatten(-2)


def group_sum(x: T, size: int) -> T:
    """The sum of each group of `size` neighbouring columns: (rows, columns / size). `size` is a power of two."""
    _check_group(size, "group_sum")
    if isinstance(x, Value):
        tile = _as_tile(x, "group_sum")
        return Value("group_sum", (tile,), "tile", "float", tile.span / size, f"group_sum({x.label}, {size})", (size,))
    return x.reshape(*x.shape[:-1], -1, size).sum(-1)


def group_broadcast(x: T, size: int) -> T:
    """Each column repeated `size` times: the way back from `group_sum`."""
    _check_group(size, "group_broadcast")
    if isinstance(x, Value):
        tile = _as_tile(x, "group_broadcast")
        label = f"group_broadcast({x.label}, {size})"
        return Value("group_broadcast", (tile,), "tile", "float", tile.span * size, label, (size,))
    return x.repeat_interleave(size, dim=-1)


def _check_group(size: int, name: str) -> None:
    if size < 2 or size & (size - 1) or size > 256:
        raise EpilogueError(f"{name}(…, {size}): the size of a group is a power of two from 2 to 256")
