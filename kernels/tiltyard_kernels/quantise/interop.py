"""Weights that bitsandbytes and torchao have quantised, read into this library's layouts without quantising again.

Read from their serialised formats, so neither package is needed. bitsandbytes: blocks of the flattened weight, the
first of two columns in the high half of a byte, `quant_state` as JSON in bytes. torchao's Int4Tensor: signed codes, the
first column in the low half, value = code · scale + zero, scales (K / group, N); its NF4Tensor: as bitsandbytes, with
int8 scales over a factor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from tiltyard_kernels.quantise.formats import ABSMAX_BLOCK
from tiltyard_kernels.quantise.tensor import Int4Tensor, Nf4Tensor

_STATE_KEY = ".quant_state.bitsandbytes__"


def read_bitsandbytes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A checkpoint with bitsandbytes' 4-bit weights (nf4 or fp4) as one with Nf4Tensors; other entries stay."""
    read = dict(state)
    for key in state:
        if _STATE_KEY not in key:
            continue
        name = key[: key.index(_STATE_KEY)]
        described = json.loads(bytes(state[key].cpu().to(torch.uint8).tolist()).decode())
        components = {part: read.pop(f"{name}.{part}") for part in _parts_of(read, name)}
        del read[key]
        read[name] = from_bitsandbytes(state[name], {**described, **components})
    return read


def _parts_of(state: Mapping[str, Any], name: str) -> list[str]:
    known = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
    return [part for part in known if f"{name}.{part}" in state]


def from_bitsandbytes(data: torch.Tensor, components: Mapping[str, Any]) -> Nf4Tensor:
    """One weight, from its bytes and what `quant_state.as_dict()` has: absmax, quant_map, blocksize, shape, dtype, and
    nested_absmax, nested_quant_map, nested_blocksize, nested_offset with double quantisation."""
    n, k = components["shape"]
    group = int(components["blocksize"])
    if k % group:
        raise ValueError(
            f"rows of {k} columns are no whole blocks of {group}; quantise this weight again with quantize_"
        )
    parts = {"values": _swapped(data).view(n, k // 2), "code": components["quant_map"].float()}
    offset = 0.0
    scale = components["absmax"].view(n, k // group)
    if "nested_absmax" in components:
        if int(components["nested_blocksize"]) != ABSMAX_BLOCK:
            raise ValueError(f"scales are quantised in blocks of {components['nested_blocksize']}, not {ABSMAX_BLOCK}")
        offset = float(components["nested_offset"])
        parts |= {"second": components["nested_absmax"].float(), "code2": components["nested_quant_map"].float()}
    else:
        scale = scale.float()
    dtype = components["dtype"]
    dtype = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype).removeprefix("torch."))
    return Nf4Tensor({**parts, "scale": scale}, (n, k), dtype, group=group, offset=offset)


def _swapped(data: torch.Tensor) -> torch.Tensor:
    flat = data.reshape(-1).view(torch.uint8)
    return (flat >> 4) | (flat << 4)


def int4_from_torchao(tensor: Any) -> Int4Tensor:
    """From torchao's Int4Tensor in its plain packing: qdata (N, K / 2), scale and zero_point (K / group, N)."""
    group = int(tensor.block_size[-1])
    scale, zero = tensor.scale.t().contiguous(), tensor.zero_point.t()
    # value = q · scale + zero with q = code − 8, so (code − (8 − zero / scale)) · scale.
    moved = (8 - zero.float() / scale.float()).contiguous()
    values = tensor.qdata.view(torch.uint8) ^ 0x88
    parts = {"values": values, "scale": scale, "zero": moved}
    return Int4Tensor(parts, tuple(tensor.shape), tensor.scale.dtype, group=group)


def nf4_from_torchao(tensor: Any) -> Nf4Tensor:
    """From torchao's NF4Tensor, whose scales are int8 over a factor for each block of 256, less their mean."""
    n, k = tensor.shape
    group = int(tensor.block_size)
    if k % group or int(tensor.scaler_block_size) != ABSMAX_BLOCK:
        raise ValueError(
            f"blocks of {group} in rows of {k}, and scales in blocks of {tensor.scaler_block_size}: this library reads "
            f"whole blocks, and {ABSMAX_BLOCK}; quantise this weight again with quantize_"
        )
    device = tensor.quantized_data.device
    parts = {
        "values": _swapped(tensor.quantized_data).view(n, k // 2),
        "scale": (tensor.quantized_scalers.to(torch.int16) + 128).to(torch.uint8).view(n, k // group),
        "code": tensor.nf4.float(),
        "second": 1 / tensor.quantization_factor.float(),
        "code2": torch.arange(-128, 128, device=device, dtype=torch.float32),
    }
    return Nf4Tensor(parts, (n, k), tensor.dtype, group=group, offset=float(tensor.scaler_mean))
