"""Training LoRA adapters with peft, shared by the baseline submissions' ``train.py``."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiltyard_baselines.data import Item, batches, encode_items
from tiltyard_baselines.plot import plot_loss
from tiltyard_baselines.quantised import LINEAR_LAYERS, quantise_base
from tiltyard_baselines.training import Schedule, train
from tiltyard_kernels import patch
from tiltyard_kernels.quantise import QuantisedTensor

logger = logging.getLogger(__name__)

ROW_TOKENS = 256


@dataclass(frozen=True)
class AdapterConfig:
    """One adapter's training. ``rank`` is LoRA's r; its alpha is twice that. Learning rate is AdamW's."""

    rank: int
    epochs: float
    learning_rate: float = 3e-3
    rows_per_batch: int = 16
    prompt_weight: float = 0.0
    warmup_fraction: float = 0.05
    decay_fraction: float = 0.7
    base: Literal["plain", "nf4"] = "plain"  # nf4 is QLoRA: the frozen weights stay in four bits


def train_adapter(
    base_model: Path,
    items: Sequence[Item],
    out: Path,
    config: AdapterConfig,
    *,
    seed: int,
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    on_kernels: bool | None = None,
) -> None:
    """Train a LoRA adapter (Hu et al., 2021) on every linear layer and save it in ``out`` as peft does, in bf16.

    ``on_kernels`` trains through ``tiltyard_kernels``, to the same losses; by default on a GPU only.
    """
    tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32, local_files_only=True)
    if config.base == "nf4":
        quantise_base(model)
    model = add_adapter(model, config.rank, seed).to(device)
    if on_kernels or (on_kernels is None and device.startswith("cuda")):
        run_on_kernels(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    data = encode_items(items, tokenizer, ROW_TOKENS)
    steps = max(1, math.ceil(config.epochs * len(data.tokens) / (config.rows_per_batch * ROW_TOKENS)))
    trained = sum(parameter.numel() for parameter in parameters)
    logger.info("%d items, %d tokens; %d parameters; %d steps", len(data), len(data.tokens), trained, steps)
    out.mkdir(parents=True, exist_ok=True)
    train(
        model,
        batches(data, config.rows_per_batch, ROW_TOKENS, config.prompt_weight, seed),
        [torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)],
        Schedule(steps, math.inf, config.warmup_fraction, config.decay_fraction),
        device=torch.device(device),
        log_path=out / "loss.jsonl",
    )
    model.peft_config["default"].base_model_name_or_path = base_model.name
    # Without embeddings in the adapter there is no reason to ask a model hub for the base model's configuration.
    model.to(torch.bfloat16).save_pretrained(out, save_embedding_layers=False)
    (out / "adapter_model.safetensors").chmod(0o644)  # safetensors writes 0600, which another user could not read
    (out / "README.md").unlink(missing_ok=True)  # peft's empty model card; the submission has its own
    plot_loss(out / "loss.jsonl", out / "loss.svg")


def add_adapter(model: Any, rank: int, seed: int) -> Any:
    """Return the model as peft's, with an untrained adapter on every linear of its decoder layers.

    ``seed`` alone decides the adapter's first weights: they are drawn on the CPU, whatever kind of base there is.
    """
    torch.manual_seed(seed)
    return get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LINEAR_LAYERS, task_type="CAUSAL_LM", bias="none")
    )


def run_on_kernels(model: torch.nn.Module) -> None:
    """Patch the model. Autocast would round the frozen weights to bf16 at every step: they are rounded once."""
    for module in model.modules():
        weight = getattr(getattr(module, "base_layer", None), "weight", None)
        if not isinstance(weight, torch.nn.Parameter) or isinstance(weight, QuantisedTensor):
            continue
        if weight.is_floating_point():  # bitsandbytes' are bytes
            weight.data = weight.data.to(torch.bfloat16)
    patch(model)
