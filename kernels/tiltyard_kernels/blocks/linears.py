"""What a model's linear is at one call: its base and peft's adapters on it, as the fused products take them.

Read anew at every call, since adapters are switched, merged, disabled and loaded between calls. What peft does and the
products do not (variants other than DoRA, a trained base under an adapter, another kind of base, hooks on what is
never called) is None here, and runs as peft has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn

from tiltyard_kernels.blocks.adapters import Adapter, Joined, join_adapters
from tiltyard_kernels.gemm.ops import RANK_MAX


@dataclass(frozen=True)
class Linear:
    """weight (N, K), bias (N,), adapters; for DoRA the magnitude (N,) of the only one.

    `samples`: for each sample of the batch the index of its adapter, −1 for none; without it all go through all.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    adapters: tuple[Adapter, ...] = ()
    magnitude: torch.Tensor | None = None
    samples: tuple[int, ...] | None = None

    @property
    def has_dropout(self) -> bool:
        """Whether an adapter drops numbers of its input at this call."""
        return any(adapter.dropout for adapter in self.adapters)


def as_linear(module: Any, names: Sequence[str] | None = None) -> Linear | None:
    """The module as a Linear, or None if it is more than that.

    `names` is peft's `adapter_names`, one for each sample; without it the active adapters count. The module's own hooks
    are not looked at: see `adapter_names`.
    """
    parts = module._modules  # past nn.Module's own look-up, which at seven linears a layer is what this takes
    if "lora_A" not in parts:
        return Linear(module.weight, module.bias) if isinstance(module, nn.Linear) else None
    base = parts["base_layer"]
    if not isinstance(base, nn.Linear) or has_hooks(base) or module.__dict__.get("fan_in_fan_out", False):
        return None
    if module.disable_adapters or module.merged:
        # With both peft unmerges; with names and merged adapters it raises.
        is_plain = not module.merged or (not module.disable_adapters and names is None)
        return Linear(base.weight, base.bias) if is_plain else None
    known = parts["lora_A"]._modules
    found = [name for name in (module.active_adapters if names is None else dict.fromkeys(names)) if name in known]
    if not found:
        return Linear(base.weight, base.bias)
    return None if base.weight.requires_grad else _adapted(module, base, found, names)


def _adapted(module: Any, base: nn.Linear, found: list[str], names: Sequence[str] | None) -> Linear | None:
    """The base with the adapters of these names, if they are what the products take."""
    parts = module._modules
    every_a, every_b, dropouts = (parts[name]._modules for name in ("lora_A", "lora_B", "lora_dropout"))
    adapters: list[Adapter] = []
    bias, rank = base.bias, 0
    for name in found:
        a, b, rate = every_a[name], every_b[name], _rate(dropouts[name])
        if rate is None or not (_is_plain(a) and _is_plain(b)):
            return None
        adapter = Adapter(a.weight, b.weight, float(module.scaling[name]), rate)
        adapters.append(adapter)
        rank += adapter.a.shape[0]
        if b.bias is not None:
            if names is not None:
                return None
            bias = b.bias * adapter.scale if bias is None else bias + b.bias * adapter.scale
    if rank > RANK_MAX:
        return None
    magnitude = samples = None
    if names is not None:
        places = {name: index for index, name in enumerate(found)}
        samples = tuple(places.get(name, -1) for name in names)
    if any(name in module.lora_variant for name in found):
        is_alone = len(found) == 1 and names is None and bias is base.bias
        if not is_alone or not module.use_dora.get(found[0], False):
            return None
        magnitude = module.lora_magnitude_vector[found[0]].weight
    return Linear(base.weight, bias, tuple(adapters), magnitude, samples)


def _is_plain(module: Any) -> bool:
    return isinstance(module, nn.Linear) and not has_hooks(module)


def _rate(module: Any) -> float | None:
    """The rate of peft's dropout module at this call; None if it is no dropout that drops some and keeps some."""
    if isinstance(module, nn.Identity):
        return 0.0
    if type(module) is not nn.Dropout or (module.training and module.p >= 1):
        return None
    return float(module.p) if module.training else 0.0


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module would do more than its forward."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def adapter_names(module: nn.Module) -> tuple[bool, Sequence[str] | None]:
    """(whether the module has no other hooks than the one by which peft hands `adapter_names` on, those names)."""
    if module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
        return False, None
    names = None
    for hook in module._forward_pre_hooks.values():
        if not isinstance(hook, partial) or set(hook.keywords) != {"adapter_names"}:
            return False, None
        names = hook.keywords["adapter_names"]
    return True, names


def join(linears: Sequence[Linear], rows: int, dtype: torch.dtype, *, is_interleaved: bool = False) -> Joined | None:
    """All adapters of linears that share an input of so many `rows`, which is whole samples."""
    columns = [linear.weight.shape[0] for linear in linears]
    joined = join_adapters([linear.adapters for linear in linears], columns, dtype, is_interleaved=is_interleaved)
    if joined is None:
        return None
    if any(linear.samples is not None for linear in linears):
        owners = tuple((linear.samples, len(linear.adapters)) for linear in linears if linear.adapters)
        joined = replace(joined, chosen=_chosen(owners, joined.ranks, rows, dtype, joined.a.device))
    if any(linear.magnitude is not None for linear in linears):
        magnitude, has_magnitude = _magnitudes(linears, is_interleaved=is_interleaved)
        joined = replace(joined, magnitude=magnitude, has_magnitude=has_magnitude)
    return joined


@lru_cache(maxsize=8)
def _chosen(
    owners: tuple[tuple[tuple[int, ...], int], ...],
    ranks: tuple[int, ...],
    rows: int,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """(rows, R): 1 where a row's sample goes through the adapter that owns a column of P. The same in every layer."""
    with torch.inference_mode(False):  # kept from call to call, and gradients may be wanted in another
        flags = [
            [float(sample == index) for samples, count in owners for index in range(count) for sample in [samples[row]]]
            for row in range(len(owners[0][0]))
        ]
        small = torch.tensor(flags, dtype=dtype, device=device)
        wide = small.repeat_interleave(torch.tensor(ranks, device=device), 1, output_size=sum(ranks))
        return wide.repeat_interleave(rows // len(flags), 0)


def _magnitudes(linears: Sequence[Linear], *, is_interleaved: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The magnitudes as the product's columns lie, and where there is one, if not everywhere."""
    parts, places = [], []
    for linear in linears:
        has_one = linear.magnitude is not None
        columns, device = linear.weight.shape[0], linear.weight.device
        parts.append(linear.magnitude if linear.magnitude is not None else torch.ones(columns, device=device))
        places.append(torch.full((columns,), has_one, device=device))
    if len(parts) == 1:
        return parts[0], None
    magnitude, has_magnitude = (
        torch.stack(several, 1).flatten() if is_interleaved else torch.cat(several) for several in (parts, places)
    )
    return magnitude, None if all(linear.magnitude is not None for linear in linears) else has_magnitude
