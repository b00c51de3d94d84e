"""Train squire, the base model, from scratch.

    python -m tiltyard_baselines.pretrain --data pretrain.jsonl --out baselines/squire --seed 1 [--config gpu]

Builds the tokenizer from the data, trains, and writes a checkpoint that transformers loads like any other, with
``loss.jsonl`` and ``loss.svg`` beside it.
"""

import argparse
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tiltyard_baselines.config import PRESETS, ModelConfig
from tiltyard_baselines.data import batches, encode_items, read_items
from tiltyard_baselines.plot import plot_loss
from tiltyard_baselines.tokenizer import build_tokenizer
from tiltyard_baselines.training import Schedule, build_optimizers, train

logger = logging.getLogger(__name__)

TOKENIZER_SAMPLE_ITEMS = 80_000


def build_model(config: ModelConfig, tokenizer: Any) -> Any:
    """Return a randomly initialised fp32 ``LlamaForCausalLM`` for the tokenizer."""
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.context_tokens,
        rope_theta=config.rope_theta,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(llama)


def save_checkpoint(model: Any, tokenizer: Any, out: Path) -> None:
    """Write model (as bf16) and tokenizer into ``out``."""
    state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    model.save_pretrained(out, state_dict=state)
    config_path = out / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8")) | {"dtype": "bfloat16"}
    config_path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes 0600, which another user could not read


def main() -> None:
    options = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high")
    preset = PRESETS[options.config]
    overrides = {"wall_s": options.wall_s, "max_steps": options.steps}
    run = dataclasses.replace(preset.train, **{name: value for name, value in overrides.items() if value is not None})
    device = torch.device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)

    items = read_items(options.data)
    tokenizer = build_tokenizer(items[:TOKENIZER_SAMPLE_ITEMS])
    data = encode_items(items, tokenizer, preset.model.context_tokens)
    model = build_model(preset.model, tokenizer).to(device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    logger.info(
        "%d items, %d tokens; vocabulary %d; %d parameters", len(data), len(data.tokens), len(tokenizer), parameters
    )

    steps = train(
        torch.compile(model) if options.compile else model,
        batches(data, run.rows_per_batch, preset.model.context_tokens, run.prompt_weight, options.seed),
        build_optimizers(model, run.muon_lr, run.adam_lr, run.weight_decay),
        Schedule(run.max_steps, run.wall_s, run.warmup_fraction, run.decay_fraction),
        device=device,
        log_path=options.out / "loss.jsonl",
        gradient_clip=run.gradient_clip,
        checkpoint=lambda: save_checkpoint(model, tokenizer, options.out),
    )
    save_checkpoint(model, tokenizer, options.out)
    plot_loss(options.out / "loss.jsonl", options.out / "loss.svg")
    logger.info("%d steps; checkpoint in %s", steps, options.out)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the base model from scratch.")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="JSON Lines of training items")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--config", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    parser.add_argument("--wall-s", type=float, help="stop after so many seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="use torch.compile, which pays on a GPU")
    return parser.parse_args()


if __name__ == "__main__":
    main()
