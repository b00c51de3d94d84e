"""`patch(model)`: a transformers or peft model, as it is, on these kernels.

Decoder layers of Llama, Qwen 2 and Qwen 3 run as Blocks, peft's LoRA and DoRA linears as `lora_linear` and
`dora_linear`, and bitsandbytes' 4-bit bases become NF4 weights of this library. Modules, parameters and their names
stay, so optimisers, `save_pretrained` of adapters and gradient checkpointing go on as before, and so do hooks on layers
and adapted linears. `copy.deepcopy` gives a patched copy. `unpatch` undoes it, except for quantised bases.

What has a `forward` of its own on the instance, such as accelerate sets to move weights between devices, is left alone,
and a layer as well if any of its modules has one: a Block reads their weights past it. `Patched.left` names them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn

from tiltyard_kernels.blocks.decoder import Block, is_supported
from tiltyard_kernels.lora import dora_linear, lora_linear
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
    """A peft linear's forward; what is more than one plain or DoRA adapter goes to peft's own."""
    plain: partial[torch.Tensor] = partial(type(module).forward, module)
    if args or kwargs or module.merged or module.disable_adapters:
        return plain(x, *args, **kwargs)
    active = [name for name in module.active_adapters if name in module.lora_A]
    base = module.base_layer
    if len(active) != 1 or base.weight.requires_grad or module.lora_B[active[0]].bias is not None:
        return plain(x)
    name = active[0]
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    scale = float(module.scaling[name])
    dropout = float(getattr(module.lora_dropout[name], "p", 0.0)) if module.training else 0.0
    # peft computes in the adapter's type and gives back the base's; mixed types come from autocast or from loading.
    x = x if torch.is_autocast_enabled(x.device.type) else x.to(base.weight.dtype)
    if name not in module.lora_variant:
        return lora_linear(x, base.weight, a, b, scale=scale, bias=base.bias, dropout=dropout)
    if module.use_dora.get(name, False) and not dropout:
        magnitude = module.lora_magnitude_vector[name].weight
        return dora_linear(x, base.weight, a, b, magnitude, scale=scale, bias=base.bias)
    return plain(x)


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
