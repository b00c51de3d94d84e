"""Quantised weights that stand where a linear's weight stands.

A `QuantisedTensor` is a tensor subclass: it has the weight's shape and the type that computations with it have, and
keeps a few plain tensors. `torch.nn.functional.linear` with it as the weight runs `quantised_linear`. It can be moved,
cloned, sliced by rows (and by whole groups of columns), pickled, put into a state_dict, and traced by torch.compile;
anything else raises, so that nothing is widened unseen. `dequantise()` widens it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch

from tiltyard_kernels.gemm.packed import PackedWeight
from tiltyard_kernels.quantise import formats

aten = torch.ops.aten
# Names of a PackedWeight's tensors that have one row for each row of the weight.
_BY_ROW = ("values", "scale", "zero")
_TENSORS = ("values", "scale", "zero", "code", "second", "code2")


class QuantisedTensor(torch.Tensor):
    """The base class. Subclasses fix the format.

    Inner tensors (those that a format has, see PackedWeight for shapes): values, scale, zero, code, second, code2.
    Fixed beside them: `group` and `offset`.
    """

    format: ClassVar[Any] = "wide"
    kind: ClassVar[Any] = "plain"

    values: torch.Tensor  # type: ignore[assignment]  # a sparse tensor's method, which no weight has
    scale: torch.Tensor
    zero: torch.Tensor | None
    code: torch.Tensor | None
    second: torch.Tensor | None
    code2: torch.Tensor | None
    group: int
    offset: float

    @staticmethod
    def __new__(
        cls,
        parts: dict[str, torch.Tensor],
        shape: torch.Size | tuple[int, ...],
        dtype: torch.dtype,
        *,
        group: int = 0,
        offset: float = 0.0,
    ) -> Self:
        return torch.Tensor._make_wrapper_subclass(
            cls, torch.Size(shape), dtype=dtype, device=parts["values"].device, requires_grad=False
        )

    def __init__(
        self,
        parts: dict[str, torch.Tensor],
        _shape: torch.Size | tuple[int, ...],
        _dtype: torch.dtype,
        *,
        group: int = 0,
        offset: float = 0.0,
    ) -> None:
        for name in _TENSORS:
            setattr(self, name, parts.get(name))
        self.group = group
        self.offset = offset

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """The inner tensors by name."""
        return {name: getattr(self, name) for name in _TENSORS if getattr(self, name) is not None}

    def packed(self) -> PackedWeight:
        """What kernels take."""
        return PackedWeight(
            self.values,
            self.scale,
            (self.shape[0], self.shape[1]),
            self.format,
            self.double_kind(),
            self.group,
            self.zero,
            self.code,
            self.second,
            self.code2,
            self.offset,
        )

    def double_kind(self) -> Any:
        return self.kind if self.second is None else "double"

    def dequantise(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight (N, K) as a plain tensor, of `dtype` or its own."""
        from tiltyard_kernels.quantise.linear import dequantised  # noqa: PLC0415  # it needs this class

        return dequantised(self, dtype or self.dtype)

    def with_parts(self, change: Callable[[str, torch.Tensor], torch.Tensor], dtype: torch.dtype | None = None) -> Self:
        """The same weight with each inner tensor changed."""
        parts = {name: change(name, part) for name, part in self.parts.items()}
        rows = parts["values"].shape[0]
        columns = parts["values"].shape[1] * (2 if self.format in ("int4", "lut4") else 1)
        return type(self)(parts, (rows, columns), dtype or self.dtype, group=self.group, offset=self.offset)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        nbytes = sum(part.nbytes for part in self.parts.values())
        group = f", group={self.group}" if self.group else ""
        return f"{type(self).__name__}({tuple(self.shape)}, {self.dtype}, device={self.device}{group}, {nbytes} bytes)"

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return list(self.parts), (self.group, self.offset, self.dtype)

    @classmethod
    def __tensor_unflatten__(
        cls, inner: dict[str, torch.Tensor], fixed: Any, outer_size: Any, outer_stride: Any
    ) -> QuantisedTensor:  # torch's signature
        group, offset, dtype = fixed
        return cls(inner, outer_size, dtype, group=group, offset=offset)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        # As bytes: plain pickle cannot keep fp8.
        is_fp8 = self.values.dtype == formats.FP8
        parts = self.parts | ({"values": self.values.view(torch.uint8)} if is_fp8 else {})
        return _restored, (type(self), parts, (tuple(self.shape), self.dtype, self.group, self.offset), is_fp8)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.nn.functional.linear:
            from tiltyard_kernels.quantise.linear import quantised_linear  # noqa: PLC0415  # it needs this class

            x, weight, bias = _linear_arguments(*args, **kwargs)
            if isinstance(weight, QuantisedTensor) and not isinstance(x, QuantisedTensor):
                return quantised_linear(x, weight, bias)
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        handler = _HANDLERS.get(function)
        if handler is None:
            raise NotImplementedError(
                f"{cls.__name__} does not support {function}; widen it first with dequantise(), or use it as the "
                "weight of torch.nn.functional.linear"
            )
        return handler(*args, **(kwargs or {}))


def _linear_arguments(input: Any, weight: Any, bias: Any = None) -> Any:  # noqa: A002  # torch's name
    return input, weight, bias


def _restored(cls: Any, parts: Any, fixed: Any, is_fp8: bool) -> QuantisedTensor:
    shape, dtype, group, offset = fixed
    if is_fp8:
        parts["values"] = parts["values"].view(formats.FP8)
    made: QuantisedTensor = cls(parts, shape, dtype, group=group, offset=offset)
    return made


def _same(x: QuantisedTensor) -> QuantisedTensor:
    return x.with_parts(lambda _name, part: part.detach())


def _clone(x: QuantisedTensor, *, memory_format: Any = None) -> QuantisedTensor:  # noqa: ARG001  # torch's signature
    return x.with_parts(lambda _name, part: part.clone())


def _to_copy(x: QuantisedTensor, *, dtype: Any = None, device: Any = None, **_others: Any) -> QuantisedTensor:
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"a quantised weight cannot become {dtype}; dequantise() it first")
    return x.with_parts(lambda _name, part: part.to(device=device, copy=True), dtype)


def _slice(x: QuantisedTensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> QuantisedTensor:
    first, last, _ = slice(start, end, step).indices(x.shape[dim])
    if step != 1 or dim not in (0, 1, -2, -1):
        raise ValueError("a quantised weight is sliced by neighbouring rows, or whole groups of columns")
    by_column = dim in (1, -1)
    if x.second is not None and (first, last) != (0, x.shape[dim]):
        return _slice(_single(x), dim, start, end, step)
    if not by_column:
        return x.with_parts(lambda name, part: part[first:last] if name in _BY_ROW else part)
    unit = x.group or 2
    if first % unit or last % unit:
        raise ValueError(f"columns {first} to {last} are no whole groups of {unit} columns")
    share = {"values": x.shape[1] // x.values.shape[1], "scale": x.group, "zero": x.group}
    return x.with_parts(
        lambda name, part: part[:, first // share[name] : last // share[name]].contiguous() if share.get(name) else part
    )


def _single(x: QuantisedTensor) -> QuantisedTensor:
    """The same without quantised scales, whose blocks do not end with rows."""
    parts = x.parts
    parts = {name: part for name, part in parts.items() if name not in ("second", "code2")}
    parts["scale"] = formats.group_scales(x.packed())
    return type(x)(parts, tuple(x.shape), x.dtype, group=x.group)


def _copy(target: QuantisedTensor, source: Any, _non_blocking: bool = False) -> QuantisedTensor:
    if type(source) is not type(target) or source.shape != target.shape or source.group != target.group:
        raise ValueError(f"cannot copy {source!r} into {target!r}: quantise the source alike, or load with assign=True")
    if source.parts.keys() != target.parts.keys():
        raise ValueError("one of the two has quantised scales or zeros and the other has not: load with assign=True")
    for name, part in target.parts.items():
        part.copy_(source.parts[name])
    target.offset = source.offset
    return target


_HANDLERS: dict[Any, Callable[..., Any]] = {
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.clone.default: _clone,
    aten._to_copy.default: _to_copy,
    aten.slice.Tensor: _slice,
    aten.copy_.default: _copy,
}


class Int4Tensor(QuantisedTensor):
    """int4 in groups of columns: value = (code − zero) · scale.

    values (N, K / 2) uint8; scale (N, K / group); zero alike, or None for 8.
    """

    format = "int4"

    @classmethod
    def quantise(cls, weight: torch.Tensor, group: int = 128, *, symmetric: bool = True) -> Int4Tensor:
        return cls(formats.int4(weight, group, symmetric=symmetric), weight.shape, weight.dtype, group=group)


class Int8Tensor(QuantisedTensor):
    """int8 by rows. values (N, K) int8; scale (N,) float32."""

    @classmethod
    def quantise(cls, weight: torch.Tensor) -> Int8Tensor:
        return cls(formats.int8(weight), weight.shape, weight.dtype)


class Fp8Tensor(QuantisedTensor):
    """e4m3 by rows. values (N, K) float8_e4m3fn; scale (N,) float32."""

    @classmethod
    def quantise(cls, weight: torch.Tensor) -> Fp8Tensor:
        return cls(formats.fp8(weight), weight.shape, weight.dtype)


class DynamicFp8Tensor(Fp8Tensor):
    """e4m3 by rows, as Fp8Tensor; products of many rows quantise their activations too (`quantise.fp8`)."""

    kind = "dynamic"


class Nf4Tensor(QuantisedTensor):
    """NF4 in groups of columns, with the groups' scales quantised too unless `double` is off.

    values (N, K / 2) uint8; code (16,); scale (N, K / group) float32, or uint8 with second (⌈N · K / group / 256⌉,),
    code2 (256,) and the number `offset`.
    """

    format = "lut4"

    @classmethod
    def quantise(cls, weight: torch.Tensor, group: int = 64, *, double: bool = True) -> Nf4Tensor:
        parts, offset = formats.nf4(weight, group, double=double)
        return cls(parts, weight.shape, weight.dtype, group=group, offset=offset)


class Mxfp8Tensor(QuantisedTensor):
    """MXFP8, emulated: widened before it is multiplied. values (N, K) float8_e4m3fn; scale (N, K / 32) uint8."""

    format = "wide_grouped"
    kind = "e8m0"

    @classmethod
    def quantise(cls, weight: torch.Tensor) -> Mxfp8Tensor:
        return cls(formats.mxfp8(weight), weight.shape, weight.dtype, group=formats.MX_GROUP)


class Mxfp4Tensor(QuantisedTensor):
    """MXFP4, emulated: widened before it is multiplied.

    values (N, K / 2) uint8; code (16,); scale (N, K / 32) uint8.
    """

    format = "lut4"
    kind = "e8m0"

    @classmethod
    def quantise(cls, weight: torch.Tensor) -> Mxfp4Tensor:
        return cls(formats.mxfp4(weight), weight.shape, weight.dtype, group=formats.MX_GROUP)


FORMATS: dict[str, type[QuantisedTensor]] = {
    cls.__name__: cls
    for cls in (Int4Tensor, Int8Tensor, Fp8Tensor, DynamicFp8Tensor, Nf4Tensor, Mxfp8Tensor, Mxfp4Tensor)
}
torch.serialization.add_safe_globals([_restored, *FORMATS.values()])
