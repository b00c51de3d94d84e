"""A launch prepared once: for operands of the same shapes, strides, types and alignment, only addresses change.

What a product's launch depends on besides addresses (layouts, configuration, descriptors' shapes, partial results, the
compiled kernel) is worked out at the first call and kept under a key of those facts. A later call makes its results,
fills addresses into a prepared list, and hands it to the compiled kernel, past Triton's own specialisation of
arguments, which depends on the same facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

# Shapes that change at every call would fill memory with plans; so many are dropped together.
PLANS_MAX = 4096

Operands = Mapping[str, torch.Tensor | float]


class View(NamedTuple):
    """How a descriptor sees a tensor: row-major shape and strides, and the block it loads."""

    shape: list[int]
    strides: list[int]
    block: list[int]


class Step:
    """One kernel of a plan. `template` has its arguments in order; `slots` says where which tensor goes.

    A slot is a position, the tensor's name, and a View (a descriptor), a number (a pointer with this stride), or None
    (a pointer). `packed` fills the one argument that is a tuple: names of tensors and numbers, or fixed numbers.
    """

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        template: list[Any],
        slots: list[tuple[int, str, View | int | None]],
        *,
        packed: tuple[int, list[str | int]] | None = None,
        warps: int,
        stages: int,
    ) -> None:
        self.kernel = kernel
        self.grid = grid + (1,) * (3 - len(grid))
        self.template = template
        self.slots = slots
        self.packed = packed
        self.warps = warps
        self.stages = stages
        self._compiled: Any = None
        self._descriptors: dict[int, Any] = {}  # by slot, of the first launch

    def launch(self, tensors: Mapping[str, Any]) -> None:
        values = self.template.copy()
        compiled = self._compiled
        for slot, name, view in self.slots:
            tensor = tensors[name]
            if view is None:
                values[slot] = tensor
            elif isinstance(view, int):
                values[slot] = (tensor, view)
            elif compiled is not None:
                values[slot] = _rebased(self._descriptors[slot], tensor)
            else:
                values[slot] = _descriptor(tensor, view)
                self._descriptors[slot] = _rebased(values[slot], None)  # without the tensor, which would stay alive
        if self.packed is not None:
            slot, names = self.packed
            values[slot] = tuple([tensors[name] if isinstance(name, str) else name for name in names])
        if compiled is not None:
            compiled(*values)
        else:
            self._first_launch(values)

    def _first_launch(self, values: list[Any]) -> None:
        """Compile and launch, with fewer stages if an epilogue leaves too little shared memory for the table's."""
        from triton.runtime.errors import OutOfResources  # noqa: PLC0415  # only where Triton is there

        while True:
            try:
                made = self.kernel[self.grid](*values, num_warps=self.warps, num_stages=self.stages)
            except OutOfResources:
                if self.stages == 1:
                    raise
                self.stages -= 1
            else:
                self._compiled = None if made is None else made[self.grid]  # the interpreter makes nothing
                return


def _descriptor(tensor: torch.Tensor, view: View) -> Any:
    from triton.tools.tensor_descriptor import TensorDescriptor  # noqa: PLC0415  # only where kernels run

    return TensorDescriptor(tensor, view.shape, view.strides, view.block)


def _rebased(first: Any, base: torch.Tensor | None) -> Any:
    """A copy of the descriptor with another base, past the checks of its making, which the first base has passed.

    Whatever this version of Triton keeps in a descriptor, its launcher may read, so all of it comes along.
    """
    described = object.__new__(type(first))
    described.__dict__.update(first.__dict__)
    described.base = base
    return described


class Result(NamedTuple):
    """A tensor that a plan makes: a result, or one of a reduction's partials."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    is_zeroed: bool = False


class Plan(NamedTuple):
    """The steps of one product, the tensors they write, and how partial results are finished.

    `finishes` names each reduction with its kind; `order` the results as a caller gets them.
    """

    steps: list[Step]
    tiles: list[Result]
    scratch: list[Result]
    finishes: list[tuple[str, str]]
    order: list[str]
    copied: list[str]
    device: torch.device

    def run(self, tensors: dict[str, Any], into: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """`tensors` has the operands by name; they are added to. Returns the results in the order of their stores."""
        device = self.device
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return self.run(tensors, into)
        for result in self.tiles:
            if into is not None and result.name in into:
                tensors[result.name] = into[result.name]
            else:
                tensors[result.name] = torch.empty(result.shape, dtype=result.dtype, device=device)
        for result in self.scratch:
            make = torch.zeros if result.is_zeroed else torch.empty
            tensors[result.name] = make(result.shape, dtype=result.dtype, device=device)
        for name in self.copied:
            tensors[name] = tensors[name].contiguous()
        for step in self.steps:
            step.launch(tensors)
        for name, how in self.finishes:
            tensors[name] = _finished(how, tensors[f"{name}@partial"], tensors.get(f"{name}@second"))
        return {name: tensors[name] for name in self.order}


def _finished(how: str, partial: torch.Tensor, second: torch.Tensor | None) -> torch.Tensor:
    match how:
        case "row_rstd":
            return partial.mean(0)  # of no columns: the others have a step
        case "row_max":
            return partial.amax(0)
        case "amax":
            return partial.amax()
        case "row_lse":
            assert second is not None  # noqa: S101  # written beside the largest values
            return torch.logsumexp(partial + second.log(), 0)
    return partial.sum(0)


def facts(value: torch.Tensor | float | None) -> Any:
    """What a launch depends on in one operand, besides its address."""
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype, value.device, value.data_ptr() & 15 == 0)
    return None if value is None else "number"


class Plans:
    """Plans by their keys."""

    def __init__(self) -> None:
        self._plans: dict[Any, Plan] = {}

    def get(self, key: Any) -> Plan | None:
        return self._plans.get(key)

    def put(self, key: Any, plan: Plan) -> Plan:
        if len(self._plans) >= PLANS_MAX:
            self._plans.clear()
        self._plans[key] = plan
        return plan
