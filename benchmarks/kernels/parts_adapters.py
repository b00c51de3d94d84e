"""What peft's adapters do beside plain LoRA, ours and peft's: dropout, DoRA, several at once, one for each sample."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import Bench
from parts_training import TARGETS, _compare_steps, _compiled, llama

from tiltyard_kernels import patch

RANK = 16
# Name of the row → LoraConfig's settings.
SETTINGS: dict[str, dict[str, Any]] = {
    "dropout 0.05": {"lora_dropout": 0.05},
    "DoRA": {"use_dora": True},
    "DoRA, dropout 0.05": {"use_dora": True, "lora_dropout": 0.05},
}
NAMES = [f"adapter_{index}" for index in range(8)]


def with_adapters(model: Any, names: list[str], **settings: Any) -> Any:
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415  # only for these parts

    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, **settings)
    made = get_peft_model(model, config, adapter_name=names[0])
    for name in names[1:]:
        made.add_adapter(name, config)
    made.base_model.set_adapter(names if len(names) <= 2 else names[0])
    return made


def patched(model: Any) -> Any:
    patch(model)
    return model


def steps(bench: Bench) -> None:
    """Training steps over a bf16 base, 8192 tokens, rank 16; "plain" is what the others cost more than."""
    rows = {"plain": (NAMES[:1], {}), "two active": (NAMES[:2], {})}
    rows |= {name: (NAMES[:1], settings) for name, settings in SETTINGS.items()}
    for what, (names, settings) in rows.items():

        def make(names: list[str] = names, settings: dict[str, Any] = settings) -> Any:
            return with_adapters(llama(bench), names, **settings)

        makers: dict[str, Callable[[], Any]] = {
            "ours": lambda make=make: patched(make()),
            "peft": make,
            "peft + compile": lambda make=make: _compiled(bench, make()),
        }
        _compare_steps(bench, f"adapters, {what}", makers)


def samples(bench: Bench) -> None:
    """A forward of 32 samples by eight adapters and the base, 256 tokens each (a prompt) and one (decoding)."""
    model = with_adapters(llama(bench), NAMES).eval()
    count = bench.size(32, 9)
    chosen = ([*NAMES, "__base__"] * count)[:count]
    for name in ("peft", "ours"):
        if name == "ours":
            patch(model)
        for length in (bench.size(256, 4), 1):
            tokens = torch.randint(0, 64, (count, length), device=bench.device)
            call = partial(_logits, model, tokens, chosen)
            bench.compare(f"adapters of samples, {count}×{length}: {name}", {name: call}, in_graphs=False)


@torch.no_grad()
def _logits(model: Any, tokens: torch.Tensor, names: list[str]) -> Any:
    return model(input_ids=tokens, use_cache=False, adapter_names=names).logits
