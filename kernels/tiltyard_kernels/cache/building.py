"""Compile what a model needs for a GPU that is not there.

The model runs on the device "meta", where tensors have shapes and no contents, forward and backward: so every launch
comes with the very arguments that it will have, and is compiled in place of being run. The driver is replaced by one
that only knows its target. Compiled is what this library launches; PyTorch's own kernels need no compiling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.errors import OutOfResources
from triton.runtime.jit import JITFunction

from tiltyard_kernels.gemm.operands import STAND_IN, Gpu
from tiltyard_kernels.quantise.model import QuantiseConfig

# Names as PyTorch reports them, since tables of configurations go by them.
GPUS = {
    "nvidia-h200": Gpu("NVIDIA H200", (9, 0), 132, 232_448),
    "nvidia-h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 232_448),
    "nvidia-a100": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 166_912),
    "nvidia-l40s": Gpu("NVIDIA L40S", (8, 9), 142, 101_376),
}


class _Driver:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self._arch = 10 * capability[0] + capability[1]

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._arch, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int = 0) -> int:
        return 0


class _Compiled:
    """Stands for a compiled kernel; launching it does nothing."""

    def __getitem__(self, _grid: Any) -> Callable[..., None]:
        return lambda *_arguments: None


@contextmanager
def compiling_for(gpu: Gpu) -> Iterator[None]:
    """Compile every kernel that is launched with tensors on "meta", for `gpu`, and run none."""
    run: Any = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:  # noqa: ARG001
        made = run(self, *arguments, grid=grid, warmup=True, **options)
        made = made.result() if hasattr(made, "result") else made
        if made.metadata.shared > gpu.shared_bytes:
            raise OutOfResources(made.metadata.shared, gpu.shared_bytes, "shared memory")
        return _Compiled()

    before = driver.active if driver._active is not None else None
    is_autocast_enabled = torch.is_autocast_enabled

    def no_autocast_on_meta(*device: str) -> bool:
        return False if device == ("meta",) else is_autocast_enabled(*device)

    driver.set_active(_Driver(gpu.capability))
    STAND_IN[:] = [gpu]
    try:
        with (
            mock.patch.object(JITFunction, "run", compile_only),
            mock.patch.object(torch, "is_autocast_enabled", no_autocast_on_meta),
        ):
            yield
    finally:
        STAND_IN.clear()
        if before is not None:
            driver.set_active(before)


def compile_steps(
    gpu: Gpu, configuration: Any, *, ranks: list[int], bases: list[str], tokens: list[int], rows: list[int]
) -> None:
    """Compile for a transformers Llama or Qwen of this configuration: LoRA training steps, and forwards of few rows.

    Every combination of `ranks` and `bases` (bfloat16, nf4, int4, fp8, fp8-dynamic) trains with batches of so many
    `tokens`, and runs forwards of so many `rows`, as decoding and prompts have them. Rank 0 is the model without
    adapters, which only runs forwards.
    """
    for base in bases:
        for rank in ranks:
            with compiling_for(gpu):
                model = _model(configuration, rank, base)
                for count in tokens if rank else ():
                    _step(model, count)
                with torch.no_grad():
                    for count in rows:
                        _layers(model, count)


def _model(configuration: Any, rank: int, base: str) -> Any:
    import transformers  # noqa: PLC0415  # only where models are compiled for
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415

    from tiltyard_kernels import patch, quantise  # noqa: PLC0415

    configs: dict[str, QuantiseConfig] = {"nf4": quantise.Nf4(), "int4": quantise.Int4(), "fp8": quantise.Fp8()}
    configs["fp8-dynamic"] = quantise.Fp8(dynamic=True)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(configuration, dtype=torch.bfloat16)
        if rank:
            targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
            model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
        else:
            model.requires_grad_(False)
    if base != "bfloat16":
        quantise.quantize_(model, configs[base])
    patch(model)
    return model


def _layers(model: Any, rows: int) -> torch.Tensor:
    """The decoder layers alone: before them a model looks at its tokens' numbers, which are not there."""
    base = (model.get_base_model() if hasattr(model, "get_base_model") else model).model
    hidden = torch.empty(1, rows, base.config.hidden_size, dtype=torch.bfloat16, device="meta")
    head_dim = base.layers[0].self_attn.head_dim
    table = torch.empty(1, rows, head_dim, dtype=torch.bfloat16, device="meta")
    for layer in base.layers:
        hidden = layer(hidden, position_embeddings=(table, table))
    return hidden


def _step(model: Any, tokens: int) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.autograd.grad(_layers(model, tokens).float().square().mean(), trained)
