"""Definition of an epilogue program: trace the function once, and find what is wrong with it there and then."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from tiltyard_kernels.epilogue.operands import Load, Store
from tiltyard_kernels.epilogue.values import EpilogueError, Value

Function = Callable[..., Mapping[str, Any]]

# Names that the generated source uses itself.
_RESERVED = {"acc", "tl", "tiles", "args", "row0", "col0", "M", "N", "a", "b", "low_rank", "out", "config"}
_WIDTHS = {Fraction(1, size) for size in (1, 2, 4, 8, 16, 32, 64, 128, 256)} | {Fraction(2), Fraction(4)}


@dataclass(frozen=True, eq=False)
class Epilogue:
    """A checked program: what happens to an accumulator tile between the GEMM's mainloop and memory.

    Call `tiltyard_kernels.gemm.gemm(a, b, program, **operands)` to run it. `function` is the user's; `results` are its
    values on a symbolic accumulator, from which the kernel is written.
    """

    name: str
    function: Function
    loads: Mapping[str, Load]
    stores: Mapping[str, Store]
    results: Mapping[str, Value]

    def then(self, other: Epilogue, *, through: str) -> Epilogue:
        """This program followed by `other`, whose accumulator is this one's result `through`.

        Both keep their other results. `through` itself is not stored; have `other` return it where it is wanted.
        """
        if through not in self.stores:
            raise EpilogueError(
                f"{self.name} has no result {through!r} for {other.name} to go on with: {_names(self.stores)}"
            )
        if self.stores[through].how != "tile":
            raise EpilogueError(f"{other.name} cannot go on with {through!r}: it is a reduction, not a tile")
        _no_clash("operand", self.loads, other.loads, self.name, other.name)
        mine = {name: declared for name, declared in self.stores.items() if name != through}
        _no_clash("result", mine, other.stores, self.name, other.name)

        def both(acc: Any, **operands: Any) -> Mapping[str, Any]:
            first = dict(self.function(acc, **{name: operands[name] for name in self.loads}))
            second = other.function(first.pop(through), **{name: operands[name] for name in other.loads})
            return first | dict(second)

        return _define(f"{self.name}_{other.name}", both, {**self.loads, **other.loads}, {**mine, **other.stores})

    @cached_property
    def operator(self) -> Any:
        """The program as an operator of `torch.ops.tiltyard`, registered when the program was defined."""
        from tiltyard_kernels.epilogue.operator import register  # noqa: PLC0415  # it needs the program's source

        return register(self)

    @cached_property
    def granularity(self) -> int:
        """A sub-tile of the accumulator must have a multiple of this many columns: groups and pairs stay together."""
        finest = min((value.width for value in self.nodes if value.width is not None), default=Fraction(1))
        return max(1, int(1 / finest))

    @cached_property
    def widest(self) -> Fraction:
        """The widest value a sub-tile makes, for each of its columns: what registers and staging must hold."""
        return max((value.width for value in self.nodes if value.width is not None), default=Fraction(1))

    @cached_property
    def nodes(self) -> tuple[Value, ...]:
        """Every value the results need, arguments before their users."""
        return _in_order(self.results)


def epilogue(*, loads: Mapping[str, Load] | None = None, stores: Mapping[str, Store]) -> Callable[[Function], Epilogue]:
    """Define a program from a function `f(acc, *operands)` that returns `{result: value}`.

    `loads` declares each operand under the parameter's name, `stores` each result under its key. The function sees
    float values (float64 when the GEMM's inputs are, else float32) whatever the types in memory. What is wrong raises
    EpilogueError here, at definition.
    """
    declared = dict(loads or {})

    def decorate(function: Function) -> Epilogue:
        name = getattr(function, "__name__", "epilogue")
        _check_parameters(name, function, declared)
        return _define(name, function, declared, dict(stores))

    return decorate


def _define(name: str, function: Function, loads: dict[str, Load], stores: dict[str, Store]) -> Epilogue:
    if not stores:
        raise EpilogueError(f"{name} stores nothing: declare at least one result in stores")
    for kind, keys in (("operand", list(loads)), ("result", list(stores))):
        for key in keys:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", key) or key in _RESERVED - {"out"}:
                raise EpilogueError(f"{name}: {key!r} cannot name an {kind}; use another lower-case name")
    widths = [(key, load.width) for key, load in loads.items()] + [(key, made.width) for key, made in stores.items()]
    for key, width in widths:
        if width not in _WIDTHS:
            raise EpilogueError(f"{name}: {key!r} has the width {width}; possible are 4, 2, 1, 1/2, 1/4, … 1/256")
    if both := loads.keys() & stores.keys():
        raise EpilogueError(f"{name}: {min(both)!r} is an operand and a result; give the result a name of its own")
    operands = {key: _operand(key, load) for key, load in loads.items()}
    returned = function(Value("acc", label="acc"), **operands)
    if not isinstance(returned, Mapping):
        raise EpilogueError(f"{name} must return a dict from results to values, not {type(returned).__name__}")
    if missing := stores.keys() - returned.keys():
        raise EpilogueError(f"{name} does not return the declared result {min(missing)!r}")
    if extra := returned.keys() - stores.keys():
        raise EpilogueError(f"{name} returns {min(extra)!r}, which stores does not declare")
    results = {key: _checked_result(name, key, returned[key], store) for key, store in stores.items()}
    program = Epilogue(name, function, loads, stores, results)
    used = {value.static[0] for value in program.nodes if value.op == "load"}
    used |= _scalars_of_reductions(name, loads, stores)
    if unused := loads.keys() - used:
        raise EpilogueError(f"{name} never uses the operand {min(unused)!r}: no result depends on it")
    # Here and not at first use, which may be under torch.compile's tracing: it takes neither.
    _ = program.operator, program.granularity
    return program


def _check_parameters(name: str, function: Function, loads: Mapping[str, Load]) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].name != "acc":
        raise EpilogueError(f"the first parameter of {name} must be acc, the accumulator's tile")
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise EpilogueError(f"{name} must name its operands one by one instead of taking *{parameter.name}")
    names = [parameter.name for parameter in parameters[1:]]
    for parameter_name in names:
        if parameter_name not in loads:
            raise EpilogueError(
                f"{name} takes the operand {parameter_name!r}, which loads does not declare: "
                "tile(), per_row(), per_column() or scalar()"
            )
    for declared_name in loads:
        if declared_name not in names:
            raise EpilogueError(f"{name} declares the operand {declared_name!r} but has no parameter of that name")


def _scalars_of_reductions(name: str, loads: dict[str, Load], stores: dict[str, Store]) -> set[str]:
    """The operands that are used after the function: by reductions."""
    found = {key: made.eps for key, made in stores.items() if made.eps is not None}
    for key, eps in found.items():
        if eps not in loads or loads[eps].extent != "scalar":
            raise EpilogueError(f"{name}: the result {key!r} needs {eps!r} declared in loads as a scalar()")
    return set(found.values())


def _operand(name: str, load: Load) -> Value:
    width = load.width if load.extent in ("tile", "column") else None
    return Value("load", (), load.extent, "int" if load.integer else "float", width, name, (name,))


def _checked_result(program: str, name: str, value: object, declared: Store) -> Value:
    if isinstance(value, int | float) or not isinstance(value, Value):
        raise EpilogueError(f"{program}: the result {name!r} is a {type(value).__name__}, not a value of the program")
    if value.kind != "float":
        raise EpilogueError(
            f"{program}: the result {name!r} is {value.label}, a {value.kind}; use where() to make numbers of it"
        )
    if value.width is None:
        raise EpilogueError(f"{program}: the result {name!r} is {value.label}, which has no columns of its own")
    if declared.how in ("tile", "column_sum") and value.width != declared.width:
        raise EpilogueError(
            f"{program}: the result {name!r} is declared with the width {declared.width}, but "
            f"{value.label} has the width {value.width}"
        )
    return value


def _in_order(results: Mapping[str, Value]) -> tuple[Value, ...]:
    order: dict[int, Value] = {}
    stack = [(value, False) for value in reversed(list(results.values()))]
    while stack:
        value, is_ready = stack.pop()
        if id(value) in order:
            continue
        if is_ready:
            order[id(value)] = value
        else:
            stack.append((value, True))
            stack.extend((argument, False) for argument in reversed(value.arguments))
    return tuple(order.values())


def _no_clash(kind: str, mine: Mapping[str, object], others: Mapping[str, object], first: str, second: str) -> None:
    if clash := mine.keys() & others.keys():
        raise EpilogueError(f"{first} and {second} both have the {kind} {min(clash)!r}; rename one of them")


def _names(names: Mapping[str, object]) -> str:
    return "it has " + ", ".join(repr(name) for name in names)
