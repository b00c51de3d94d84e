"""Small peft models, by themselves and patched, with adapters that do something."""

import copy
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tiltyard_kernels import patch

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
MODELS: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),  # biases on queries, keys and values
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16)),  # norms of query and key heads
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


NAMES = ["two", "__base__", "one", "three", "one"]


def config(**settings: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": TARGETS} | settings)


def stir(model: torch.nn.Module) -> None:
    """Adapters that do something: B and what comes beside it are not 0, magnitudes are not the norms."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        elif "lora_magnitude" in name:
            with torch.no_grad():
                parameter.mul_(torch.rand_like(parameter) + 0.5)


def adapted(kind: str, *configs: LoraConfig) -> Any:
    """A peft model with adapters named one, two, …"""
    model: Any = get_peft_model(MODELS[kind](), configs[0], adapter_name="one")
    for name, further in zip(("two", "three", "four"), configs[1:], strict=False):
        model.add_adapter(name, further)
    stir(model)
    return model


def loss_and_gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    tokens = torch.randint(0, 50, (2, 9))
    loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return loss, dict(zip(named, torch.autograd.grad(loss, named.values()), strict=True))


def assert_same(model: Any, patched: Any) -> None:
    expected, found = loss_and_gradients(model), loss_and_gradients(patched)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(
            found[1][name], gradient, rtol=2e-4, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


def pair(kind: str, *configs: LoraConfig) -> tuple[Any, Any]:
    """A peft model and the same patched."""
    plain = adapted(kind, *configs)
    patched = copy.deepcopy(plain)
    patch(patched)
    return plain, patched
