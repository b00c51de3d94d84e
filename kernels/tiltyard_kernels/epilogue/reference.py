"""The same program on torch tensors, in the precision of the accumulator it is given: what the kernel is held to.

It is also how programs run where there is no Triton. It is differentiable by autograd, so a backward program can be
checked against its forward program's reference.
"""

from collections.abc import Mapping

import torch

from tiltyard_kernels.epilogue.program import Epilogue


def evaluate(
    program: Epilogue, acc: torch.Tensor, operands: Mapping[str, torch.Tensor | float]
) -> dict[str, torch.Tensor]:
    """Run `program` on the whole accumulator (M, N), float32 or float64. Tile results keep the accumulator's dtype."""
    values = {name: _as_value(program, name, operands[name], acc) for name in program.loads}
    returned = program.function(acc, **values)
    return {name: _reduced(returned[name], store.how, acc.shape[0]) for name, store in program.stores.items()}


def _as_value(program: Epilogue, name: str, operand: torch.Tensor | float, acc: torch.Tensor) -> torch.Tensor:
    load = program.loads[name]
    if not isinstance(operand, torch.Tensor):
        return torch.tensor(float(operand), dtype=acc.dtype, device=acc.device)
    value = operand if load.integer else operand.to(acc.dtype)
    if load.extent == "row":
        return value[:, None]
    if load.extent == "column":
        return value[None, :]
    if load.period:
        return value.repeat(1, int(acc.shape[1] * load.width) // load.period)
    return value


def _reduced(value: torch.Tensor, how: str, rows: int) -> torch.Tensor:
    value = value.expand(rows, value.shape[-1])
    match how:
        case "row_sum":
            return value.sum(1)
        case "row_max":
            return value.amax(1)
        case "row_lse":
            return value.logsumexp(1)
        case "column_sum":
            return value.sum(0)
        case "amax":
            return value.abs().amax()
    return value
