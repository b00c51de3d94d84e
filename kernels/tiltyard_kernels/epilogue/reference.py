"""The same program on torch tensors, in the precision of the accumulator it is given: what the kernel is held to.

It is also how programs run where there is no Triton. It is differentiable by autograd, so a backward program can be
checked against its forward program's reference.
"""

from collections.abc import Callable, Mapping

import torch

from tiltyard_kernels.epilogue.program import Epilogue


def evaluate(
    program: Epilogue, acc: torch.Tensor, operands: Mapping[str, torch.Tensor | float]
) -> dict[str, torch.Tensor]:
    """Run `program` on the whole accumulator (M, N), float32 or float64. Tile results keep the accumulator's dtype."""
    values = {name: _as_value(program, name, operands[name], acc) for name in program.loads}
    returned = program.function(acc, **values)
    made = {}
    for name, store in program.stores.items():
        value = returned[name]
        made[name] = _REDUCTIONS[store.how](value.expand(acc.shape[0], value.shape[-1]))
        if store.eps is not None:
            made[name] = torch.rsqrt(made[name] + values[store.eps])
    return made


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


_REDUCTIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tile": lambda value: value,
    "row_sum": lambda value: value.sum(1),
    "row_rstd": lambda value: value.mean(1),
    "row_max": lambda value: value.amax(1),
    "row_lse": lambda value: value.logsumexp(1),
    "column_sum": lambda value: value.sum(0),
    "amax": lambda value: value.abs().amax(),
}
