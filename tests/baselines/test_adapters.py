from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tiltyard_baselines.data import Item
from tiltyard_baselines.evaluate_local import accuracy_by_task
from tiltyard_baselines.lora import AdapterConfig, train_adapter
from tiltyard_baselines.serve.engine import Engine
from tiltyard_baselines.serve.loading import load_model
from tiltyard_baselines.serve.runner import ModelRunner

# peft 0.21 still asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def adapter(checkpoint: Path, copy_items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    config = AdapterConfig(rank=8, epochs=400, learning_rate=1e-2, rows_per_batch=2)
    train_adapter(checkpoint, copy_items, folder, config, seed=1, device="cpu")
    return folder


def test_adapter_is_what_peft_writes(adapter: Path) -> None:
    assert {"adapter_config.json", "adapter_model.safetensors", "loss.jsonl"} <= {p.name for p in adapter.iterdir()}
    assert str(adapter.parent) not in (adapter / "adapter_config.json").read_text()


def test_adapter_learns_items_the_base_does_not_know(adapter: Path, checkpoint: Path, copy_items: list[Item]) -> None:
    scores = []
    for path in (None, adapter):
        engine = Engine(ModelRunner(*load_model(checkpoint, path, "cpu"), slots=16, max_context_tokens=128))
        scores.append(accuracy_by_task(engine, copy_items)["copy"])
        engine.stop()
    assert scores[0] < 0.2
    assert scores[1] > 0.8


def test_merged_adapter_computes_what_peft_computes(adapter: Path, checkpoint: Path, tokenizer: Any) -> None:
    merged, _ = load_model(checkpoint, adapter, "cpu")
    base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    unmerged = PeftModel.from_pretrained(base, adapter).eval()
    ids = torch.tensor([tokenizer("Say c.\nAnswer:")["input_ids"]])
    with torch.inference_mode():
        torch.testing.assert_close(merged(ids).logits, unmerged(ids).logits, rtol=1e-3, atol=1e-3)
