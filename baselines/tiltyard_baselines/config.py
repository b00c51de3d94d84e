"""Sizes and schedules of the base model, one preset for a CPU and one for a GPU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a Llama-architecture model with tied embeddings."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    context_tokens: int = 256
    rope_theta: float = 10_000.0


@dataclass(frozen=True)
class TrainConfig:
    """One training run: batch, schedule and loss weights.

    ``prompt_weight`` is the loss weight of prompt tokens; answers weigh 1. Most prompts carry random digits and
    letters which nothing can predict, so their loss is kept small.
    """

    rows_per_batch: int
    wall_s: float
    max_steps: int
    muon_lr: float
    adam_lr: float
    weight_decay: float = 0.01
    prompt_weight: float = 0.1
    warmup_fraction: float = 0.02
    decay_fraction: float = 0.4
    gradient_clip: float = 1.0


@dataclass(frozen=True)
class Preset:
    """What ``--config NAME`` selects."""

    model: ModelConfig
    train: TrainConfig


PRESETS = {
    "cpu": Preset(
        ModelConfig(hidden_size=160, intermediate_size=448, layers=5, heads=5, kv_heads=5),
        TrainConfig(rows_per_batch=12, wall_s=2100, max_steps=1_000_000, muon_lr=0.02, adam_lr=2e-3),
    ),
    "gpu": Preset(
        ModelConfig(hidden_size=256, intermediate_size=704, layers=8, heads=4, kv_heads=4),
        TrainConfig(rows_per_batch=128, wall_s=1800, max_steps=2000, muon_lr=0.02, adam_lr=2e-3),
    ),
}
