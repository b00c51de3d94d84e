"""`quantize_`: replace the weights of a model's linears by quantised ones, in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from tiltyard_kernels.quantise.tensor import (
    DynamicFp8Tensor,
    Fp8Tensor,
    Int4Tensor,
    Int8Tensor,
    Mxfp4Tensor,
    Mxfp8Tensor,
    Nf4Tensor,
    QuantisedTensor,
)

Filter = Callable[[nn.Module, str], bool]


@dataclass(frozen=True)
class Int4:
    """int4 in groups of columns; `symmetric` keeps no zeros."""

    group: int = 128
    symmetric: bool = True

    def quantise(self, weight: torch.Tensor) -> QuantisedTensor:
        return Int4Tensor.quantise(weight, self.group, symmetric=self.symmetric)


@dataclass(frozen=True)
class Nf4:
    """NF4 in groups of columns, `double`: with quantised scales, as QLoRA has it."""

    group: int = 64
    double: bool = True

    def quantise(self, weight: torch.Tensor) -> QuantisedTensor:
        return Nf4Tensor.quantise(weight, self.group, double=self.double)


@dataclass(frozen=True)
class Int8:
    """int8 by rows."""

    group: int = 2

    def quantise(self, weight: torch.Tensor) -> QuantisedTensor:
        return Int8Tensor.quantise(weight)


@dataclass(frozen=True)
class Fp8:
    """e4m3 by rows. `dynamic`: many rows of bfloat16 activations are quantised too, so that fp8 multiplies fp8."""

    group: int = 2
    dynamic: bool = False

    def quantise(self, weight: torch.Tensor) -> QuantisedTensor:
        return (DynamicFp8Tensor if self.dynamic else Fp8Tensor).quantise(weight)


@dataclass(frozen=True)
class Mxfp8:
    """MXFP8, emulated."""

    group: int = 32

    def quantise(self, weight: torch.Tensor) -> QuantisedTensor:
        return Mxfp8Tensor.quantise(weight)


@dataclass(frozen=True)
class Mxfp4:
    """MXFP4, emulated."""

    group: int = 32

    def quantise(self, weight: torch.Tensor) -> QuantisedTensor:
        return Mxfp4Tensor.quantise(weight)


QuantiseConfig = Int4 | Int8 | Fp8 | Nf4 | Mxfp8 | Mxfp4


def quantize_(model: nn.Module, config: QuantiseConfig, filter_fn: Filter | None = None) -> list[str]:
    """Quantise the weights of the linears that `filter_fn(module, name)` takes; return their names.

    Without a filter: every linear whose rows are whole groups, but for one that shares its weight with another module,
    such as a head tied to embeddings, and for adapters. Quantised weights are frozen.
    """
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    changed = []
    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or isinstance(module.weight, QuantisedTensor):
            continue
        is_wanted = filter_fn(module, name) if filter_fn else _is_usual(module, name, config, owners)
        if is_wanted:
            quantised = config.quantise(module.weight.detach())
            module.weight = nn.Parameter(quantised, requires_grad=False)
            changed.append(name)
    return changed


def _is_usual(module: nn.Linear, name: str, config: QuantiseConfig, owners: dict[int, int]) -> bool:
    is_adapter = any(part.startswith("lora_") for part in name.split("."))
    is_alone = owners[id(module.weight)] == 1
    return is_alone and not is_adapter and module.in_features % config.group == 0
