"""`patch(model)`: a transformers or peft model, as it is, on these kernels.

Decoder layers of Llama, Qwen 2 and Qwen 3 run as Blocks, peft's LoRA and DoRA linears as `lora_linear` and
`dora_linear`, and bitsandbytes' 4-bit bases become NF4 weights of this library. Modules, parameters and their names
stay, so optimisers, `save_pretrained` of adapters and gradient checkpointing go on as before, and so do hooks on layers
and adapted linears. `copy.deepcopy` gives a patched copy. `unpatch` undoes it, except for quantised bases.

What has a `forward` of its own on the instance, such as accelerate sets to move weights between devices, is left alone,
and a layer as well if any of its modules has one: a Block reads their weights past it. `Patched.left` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn

from tiltyard_kernels.blocks.decoder import Block, is_supported
from tiltyard_kernels.blocks.linears import Linear, as_linear, join
from tiltyard_kernels.dora import dora_linear
from tiltyard_kernels.gemm.ops import RANK_MAX
from tiltyard_kernels.lora import cast_for_autocast, joined_linear, lora_linear
from tiltyard_kernels.quantise.interop import from_bitsandbytes

_BLOCK = "_tiltyard_block"
_OURS = "_tiltyard_forward"


@dataclass(frozen=True)
class Patched:
    """What was changed: names of layers, of adapted linears, and of bases taken over from bitsandbytes.

    `left` names the layers and adapted linears that stay as they were, since their forward or that of a module in them
    was replaced already.
    """

    layers: list[str] = field(default_factory=list)
    linears: list[str] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def patch(model: nn.Module, *, whole_layers: bool = True) -> Patched:
    """Run `model` on these kernels, in place. Without `whole_layers` only adapted linears change."""
    done = Patched()
    for name, module in list(model.named_modules()):
        if not hasattr(module, "base_layer") or _OURS in module.__dict__:
            continue
        if _has_replaced(module):
            done.left.append(name)
            continue
        if _take_over_bitsandbytes(module):
            done.bases.append(name)
        if _is_peft_linear(module):
            _replace(module, partial(_run_linear, module))
            done.linears.append(name)
    if whole_layers:
        for name, module in model.named_modules():
            if not is_supported(module) or _BLOCK in module.__dict__:
                continue
            if _has_replaced(module):
                done.left.append(name)
                continue
            # In __dict__, past nn.Module: the block's modules are the layer's own.
            module.__dict__[_BLOCK] = Block(module)
            _replace(module, partial(_run_block, module))
            done.layers.append(name)
    return done


def unpatch(model: nn.Module) -> None:
    """Give a patched model its own forwards and its parameters their own memory again; values are unchanged.

    Raises ValueError, before anything is changed, if something has replaced a patched forward since.
    """
    for name, module in model.named_modules():
        if _OURS in module.__dict__ and module.__dict__.get("forward") is not module.__dict__[_OURS]:
            raise ValueError(
                f"the forward of {name!r} was replaced after patch(): undo that first, for instance with accelerate's "
                "remove_hook_from_submodules, then unpatch"
            )
    for module in model.modules():
        block = module.__dict__.pop(_BLOCK, None)
        if block is not None:
            block.release()
        if module.__dict__.pop(_OURS, None) is not None:
            del module.forward


def _replace(module: nn.Module, forward: partial[torch.Tensor]) -> None:
    """Set `forward`, a partial over the module: deepcopy and pickle bind a copy's to the copy, unlike a closure's."""
    module.__dict__[_OURS] = forward
    module.__dict__["forward"] = forward


def _has_replaced(module: nn.Module) -> bool:
    """Whether the forward of the module, or of one in it, is neither its class's nor ours."""
    for part in module.modules():
        forward = part.__dict__.get("forward")
        # What accelerate leaves behind when it takes a hook off is the class's own, bound.
        if forward not in (None, part.__dict__.get(_OURS), MethodType(type(part).forward, part)):
            return True
    return False


def _run_block(layer: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
    block: Block = layer.__dict__[_BLOCK]
    block.training = layer.training
    return block.forward(*args, **kwargs)


def _is_peft_linear(module: nn.Module) -> bool:
    is_adapted = hasattr(module, "lora_A") and hasattr(module, "base_layer")
    return is_adapted and isinstance(module.base_layer, nn.Linear) and not getattr(module, "fan_in_fan_out", False)


def _run_linear(module: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A peft linear's forward; what these kernels do not do goes to peft's own, with its errors."""
    plain: partial[torch.Tensor] = partial(type(module).forward, module)
    names = kwargs.get("adapter_names")
    if args or kwargs.keys() - {"adapter_names"} or (names is not None and len(names) != len(x)):
        return plain(x, *args, **kwargs)
    parts = [] if names is None else _parts(module, names)
    if names is None or len(parts) < 2:
        linear = as_linear(module, names)
        return plain(x, **kwargs) if linear is None or not linear.adapters else _adapted(linear, x)
    linears = [as_linear(module, [names[sample] for sample in part]) for part in parts]
    if any(linear is None for linear in linears):
        return plain(x, **kwargs)
    made = [_adapted(linear, x[part]) for linear, part in zip(linears, parts, strict=True) if linear is not None]
    y = made[0].new_empty(len(x), *made[0].shape[1:])
    for part, rows in zip(parts, made, strict=True):
        y[part] = rows
    return y


def _parts(module: Any, names: Sequence[str]) -> list[list[int]]:
    """The samples of a batch in parts whose adapters fit one product together: each sample is in one."""
    parts: list[set[str]] = [set()]
    rank = 0
    for name in dict.fromkeys(names):
        own = module.r[name] if name in module.lora_A else 0
        if rank + own > RANK_MAX and parts[-1]:
            parts.append(set())
            rank = 0
        parts[-1].add(name)
        rank += own
    return [[sample for sample, name in enumerate(names) if name in part] for part in parts]


def _adapted(linear: Linear, x: torch.Tensor) -> torch.Tensor:
    """peft computes in the adapter's type and gives back the base's; mixed types come from autocast or from loading."""
    x = x if torch.is_autocast_enabled(x.device.type) else x.to(linear.weight.dtype)
    adapter = linear.adapters[0]
    if linear.magnitude is not None:
        return dora_linear(
            x,
            linear.weight,
            adapter.a,
            adapter.b,
            linear.magnitude,
            scale=adapter.scale,
            bias=linear.bias,
            dropout=adapter.dropout,
        )
    if len(linear.adapters) == 1 and linear.samples is None:
        return lora_linear(
            x,
            linear.weight,
            adapter.a,
            adapter.b,
            scale=adapter.scale,
            bias=linear.bias,
            dropout=adapter.dropout,
        )
    x, weight = cast_for_autocast(x, linear.weight)
    return joined_linear(x, weight, join([linear], x[..., 0].numel(), x.dtype), linear.bias)


def _take_over_bitsandbytes(module: nn.Module) -> bool:
    """Replace a Linear4bit base by a plain linear over the same codes."""
    base = getattr(module, "base_layer", None)
    state = getattr(getattr(base, "weight", None), "quant_state", None)
    if base is None or state is None:
        return False
    weight = from_bitsandbytes(base.weight.data, state.as_dict())
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=base.bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = base.bias
    module.base_layer = linear
    return True
