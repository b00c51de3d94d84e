"""A state_dict with quantised weights as plain tensors and text, as safetensors keeps them, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from tiltyard_kernels.quantise.tensor import FORMATS, QuantisedTensor

KEY = "tiltyard_quantised"


def flatten_state(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Plain tensors, a quantised weight's parts under `name.part`, and safetensors' metadata that says what they are.

    `safetensors.torch.save_file(*flatten_state(model.state_dict()), ...)` takes them as tensors and metadata.
    """
    plain: dict[str, torch.Tensor] = {}
    described: dict[str, Any] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, QuantisedTensor):
            plain[name] = tensor
            continue
        plain |= {f"{name}.{part}": value.contiguous() for part, value in tensor.parts.items()}
        described[name] = {
            "type": type(tensor).__name__,
            "parts": list(tensor.parts),
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "group": tensor.group,
            "offset": tensor.offset,
        }
    return plain, {KEY: json.dumps(described)}


def unflatten_state(plain: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """The inverse; load it with `model.load_state_dict(state, assign=True)`. Raises ValueError for metadata that do not
    fit the tensors."""
    state = dict(plain)
    for name, entry in json.loads(metadata.get(KEY, "{}")).items():
        try:
            cls = FORMATS[entry["type"]]
            parts = {part: state.pop(f"{name}.{part}") for part in entry["parts"]}
            dtype = getattr(torch, entry["dtype"])
            shape = (int(entry["shape"][0]), int(entry["shape"][1]))
            made = cls(parts, shape, dtype, group=int(entry["group"]), offset=float(entry["offset"]))
        except (KeyError, AttributeError, TypeError, IndexError, ValueError) as error:
            raise ValueError(f"the quantised weight {name!r} is not described rightly: {error!r}") from error
        _check_shapes(name, made)
        state[name] = made
    return state


def _check_shapes(name: str, made: QuantisedTensor) -> None:
    """Kernels read by these shapes without looking again."""
    n, k = made.shape
    is_four_bit = made.format in ("int4", "lut4")
    groups = k // made.group if made.group > 0 else 0
    by_group = (n, groups)
    expected: dict[str, tuple[int, ...]] = {
        "values": (n, k // 2 if is_four_bit else k),
        "scale": (n,) if made.format == "wide" else by_group,
        "zero": by_group,
        "code": (16,),
        "code2": (256,),
        "second": (-(-n * groups // 256),),
    }
    for part, tensor in made.parts.items():
        if tuple(tensor.shape) != expected[part] or (made.group > 0 and k % made.group):
            raise ValueError(
                f"the quantised weight {name!r}: its {part} are {tuple(tensor.shape)} and must be {expected[part]}"
            )
