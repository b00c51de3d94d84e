"""From a checked program to the Triton function which the mainloop calls on each sub-tile of its accumulator.

The function's signature is `f(acc, tiles, args, row0, col0, M, N, BM, BN, EVEN_M, EVEN_N)`: `tiles` are TMA
descriptors, `args` pointers, strides and numbers. Which operand stands where is an `Access`, chosen at launch (a matrix
whose rows are not aligned to 16 bytes cannot have a descriptor). Reductions write one partial a sub-tile; a finishing
step joins them, so that results do not depend on the order in which tiles finish.
"""

from __future__ import annotations

import hashlib
import linecache
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from tiltyard_kernels.epilogue.operands import Load, Store
from tiltyard_kernels.epilogue.program import Epilogue
from tiltyard_kernels.epilogue.values import Value


@dataclass(frozen=True)
class Access:
    """How a launch reaches memory: the matrices with a TMA descriptor, in the order of the descriptors' slots."""

    described: tuple[str, ...] = ()


_ELEMENTWISE = {
    "exp": "tl.exp({0})",
    "log": "tl.log({0})",
    "sqrt": "tl.sqrt({0})",
    "rsqrt": "(1.0 / tl.sqrt({0}))",
    "sigmoid": "_sigmoid({0})",
    "tanh": "(2.0 * _sigmoid(2.0 * {0}) - 1.0)",
    "erf": "tl.erf({0})",
    "absolute": "tl.abs({0})",
    "maximum": "tl.maximum({0}, {1})",
    "minimum": "tl.minimum({0}, {1})",
    "where": "tl.where({0}, {1}, {2})",
}


def argument_layout(program: Epilogue, access: Access) -> list[tuple[str, str]]:
    """The order of `args`: pairs of an operand's name and its part (pointer, stride, number, partial, second)."""
    layout: list[tuple[str, str]] = []
    for name, load in program.loads.items():
        if name in access.described:
            continue
        parts = {"tile": ["pointer", "stride"], "row": ["pointer"], "column": ["pointer"], "scalar": ["number"]}[
            load.extent
        ]
        layout += [(name, part) for part in parts]
    for name, store in program.stores.items():
        if name in access.described:
            continue
        if store.how == "tile":
            layout += [(name, "pointer"), (name, "stride")]
        else:
            layout += [(name, "partial")] + ([(name, "second")] if store.how == "row_lse" else [])
    return layout


@cache
def source_of(program: Epilogue, access: Access) -> str:
    """The Triton source of a program, as text."""
    return _Writer(program, access).text()


@cache
def device_function(program: Epilogue, access: Access) -> Any:
    """The same, as a Triton function. Its name and its file carry a hash of the text, for caches and profilers."""
    import triton  # noqa: PLC0415  # only where kernels run: the package imports without Triton
    import triton.language as tl  # noqa: PLC0415

    from tiltyard_kernels.device.arithmetic import beside, sigmoid  # noqa: PLC0415

    text = source_of(program, access)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    filename = f"<tiltyard epilogue {program.name} {digest}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"triton": triton, "tl": tl, "_sigmoid": sigmoid, "_beside": beside}
    namespace["__name__"] = f"tiltyard_kernels.generated_{digest}"
    exec(compile(text, filename, "exec"), namespace)  # noqa: S102  # text from a checked graph; names match a strict pattern
    return namespace["epilogue"]


class _Writer:
    def __init__(self, program: Epilogue, access: Access) -> None:
        self.program = program
        self.access = access
        self.slot = {entry: index for index, entry in enumerate(argument_layout(program, access))}
        self.lines: list[str] = []
        self.names: dict[int, str] = {}
        self.known: set[str] = set()

    def text(self) -> str:
        for value in self.program.nodes:
            self.names[id(value)] = self.value(value)
        for name, store in self.program.stores.items():
            self.result(name, store, self.program.results[name])
        body = "\n".join("    " + line for line in ["rows = row0 + tl.arange(0, BM)", *self.lines])
        return (
            "@triton.jit\n"
            "def epilogue(acc, tiles, args, row0, col0, M, N, BM: tl.constexpr, BN: tl.constexpr,\n"
            f"             EVEN_M: tl.constexpr, EVEN_N: tl.constexpr):  # {self.program.name}\n{body}\n"
        )

    def add(self, expression: str) -> str:
        name = f"v{len(self.names)}"
        self.lines.append(f"{name} = {expression}")
        return name

    def argument(self, name: str, part: str) -> str:
        return f"args[{self.slot[name, part]}]"

    def columns(self, width: Fraction) -> str:
        """The name of the column numbers of a sub-tile of this width, defined once."""
        name = f"cols_{width.numerator}_{width.denominator}"
        if name not in self.known:
            self.known.add(name)
            self.lines.append(f"{name} = {_times('col0', width)} + tl.arange(0, {_times('BN', width)})")
        return name

    def value(self, value: Value) -> str:  # noqa: PLR0911  # one line an operation
        arguments = [self.names[id(argument)] for argument in value.arguments]
        match value.op:
            case "acc":
                return "acc"
            case "constant":
                return repr(value.static[0])
            case "load":
                name = value.static[0]
                load = self.program.loads[name]
                loaded = self.load(name, load)
                is_like_acc = load.extent == "tile" and load.width == 1 and not load.integer
                return self.add(f"_beside(acc, {loaded})") if is_like_acc else loaded
            case "column_index":
                return self.add(f"{self.columns(value.span)}[None, :]")
            case "cast":
                return self.add(f"{arguments[0]}.to(tl.{value.static[0]}).to(acc.dtype)")
            case "broadcast":
                return self.add(f"tl.broadcast_to({arguments[0]}, {self.shape(value.span)})")
            case "pair":
                return self.pair(value, arguments[0])
            case "interleave":
                return self.add(f"tl.reshape(tl.join({arguments[0]}, {arguments[1]}), {self.shape(value.span)})")
            case "group_sum":
                (size,) = value.static
                grouped = f"(BM, {_times('BN', value.span)}, {size})"
                return self.add(f"tl.sum(tl.reshape({arguments[0]}, {grouped}), 2)")
            case "group_broadcast":
                (size,) = value.static
                grouped = f"(BM, {_times('BN', value.span / size)}, {size})"
                spread = f"tl.broadcast_to({arguments[0]}[:, :, None], {grouped})"
                return self.add(f"tl.reshape({spread}, {self.shape(value.span)})")
            case op if op in _ELEMENTWISE:
                return self.add(_ELEMENTWISE[op].format(*arguments))
            case op:
                return self.add(f"{arguments[0]} {op} {arguments[1]}")

    def pair(self, value: Value, argument: str) -> str:
        """tl.split gives both halves at once: the first user writes it, the other finds it."""
        left, right = f"{argument}_even", f"{argument}_odd"
        if left not in self.known:
            self.known.add(left)
            paired = f"(BM, {_times('BN', value.span)}, 2)"
            self.lines.append(f"{left}, {right} = tl.split(tl.reshape({argument}, {paired}))")
            if value.span == 1 and value.extent == "tile":
                self.lines += [f"{half} = _beside(acc, {half})" for half in (left, right)]
        return (left, right)[value.static[0]]

    def shape(self, width: Fraction) -> str:
        return f"(BM, {_times('BN', width)})"

    def load(self, name: str, load: Load) -> str:
        if name in self.access.described:
            descriptor = f"tiles[{self.access.described.index(name)}]"
            return self.add(f"{descriptor}.load([row0, {_times('col0', load.width)}]).to(acc.dtype)")
        if load.extent == "scalar":
            return self.add(f"tl.full((1, 1), {self.argument(name, 'number')}, acc.dtype)")
        pointer, to = self.argument(name, "pointer"), "tl.int32" if load.integer else "acc.dtype"
        if load.extent == "row":
            return self.add(f"tl.load({pointer} + rows, mask=rows < M, other=0).to({to})[:, None]")
        columns, end = self.columns(load.width), _times("N", load.width)
        if load.extent == "column":
            return self.add(f"tl.load({pointer} + {columns}, mask={columns} < {end}, other=0).to({to})[None, :]")
        offset = f"{columns} % {load.period}" if load.period else columns
        address = f"{pointer} + rows[:, None].to(tl.int64) * {self.argument(name, 'stride')} + ({offset})[None, :]"
        mask = f"(rows < M)[:, None] & ({columns} < {end})[None, :]"
        return self.add(f"tl.load({address}, mask={mask}, other=0).to({to})")

    def result(self, name: str, store: Store, value: Value) -> None:
        text = self.names[id(value)]
        if value.extent != "tile":
            text = f"tl.broadcast_to({text}, {self.shape(value.span)})"
        if name in self.access.described:
            tile = f"tiles[{self.access.described.index(name)}]"
            self.lines.append(f"{tile}.store([row0, {_times('col0', value.span)}], ({text}).to({tile}.dtype))")
            return
        columns, end = self.columns(value.span), _times("N", value.span)
        mask = f"(rows < M)[:, None] & ({columns} < {end})[None, :]"
        if store.how == "tile":
            pointer = self.argument(name, "pointer")
            address = f"{pointer} + rows[:, None].to(tl.int64) * {self.argument(name, 'stride')} + {columns}[None, :]"
            self.lines.append(f"tl.store({address}, ({text}).to({pointer}.dtype.element_ty), mask={mask})")
            return
        partial = self.argument(name, "partial")
        by_row = f"{partial} + (col0 // BN).to(tl.int64) * M + rows"
        inside = f"({columns} < {end})[None, :]"
        self.lines.append(f"{name} = {text}")
        match store.how:
            case "row_sum" | "row_rstd":
                self.mask_unless_even(name, inside, "EVEN_N", "0.0")
                self.lines.append(f"tl.store({by_row}, tl.sum({name}, 1), mask=rows < M)")
            case "row_max":
                self.mask_unless_even(name, inside, "EVEN_N", "float('-inf')")
                self.lines.append(f"tl.store({by_row}, tl.max({name}, 1), mask=rows < M)")
            case "row_lse":
                self.mask_unless_even(name, inside, "EVEN_N", "float('-inf')")
                second = self.argument(name, "second")
                self.lines += [
                    f"{name}_max = tl.max({name}, 1)",
                    # A sub-tile beyond the last column has no largest value; −inf − −inf would be NaN.
                    f"{name}_base = tl.where({name}_max == float('-inf'), 0.0, {name}_max)",
                    f"{name}_sum = tl.sum(tl.exp({name} - {name}_base[:, None]), 1)",
                    f"tl.store({by_row}, {name}_max, mask=rows < M)",
                    f"tl.store({second} + (col0 // BN).to(tl.int64) * M + rows, {name}_sum, mask=rows < M)",
                ]
            case "column_sum":
                self.mask_unless_even(name, "(rows < M)[:, None]", "EVEN_M", "0.0")
                by_column = f"{partial} + (row0 // BM).to(tl.int64) * ({end}) + {columns}"
                self.lines.append(f"tl.store({by_column}, tl.sum({name}, 0), mask={columns} < {end})")
            case "amax":
                self.lines.append(f"{name} = tl.where({mask}, tl.abs({name}), 0.0)")
                slot = f"{partial} + (row0 // BM) * tl.cdiv(N, BN) + col0 // BN"
                self.lines.append(f"tl.store({slot}, tl.max(tl.max({name}, 1), 0), mask=col0 < N)")

    def mask_unless_even(self, name: str, mask: str, even: str, other: str) -> None:
        self.lines.append(f"if not {even}:")
        self.lines.append(f"    {name} = tl.where({mask}, {name}, {other})")


def _times(name: str, factor: Fraction) -> str:
    text = name if factor.numerator == 1 else f"{name} * {factor.numerator}"
    return f"({text})" if factor.denominator == 1 else f"({text} // {factor.denominator})"
