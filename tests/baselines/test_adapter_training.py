"""Training adapters, plain and through the kernels: the same losses, the same files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tiltyard_baselines import pretrain
from tiltyard_baselines.config import ModelConfig
from tiltyard_baselines.data import Item
from tiltyard_baselines.lora import AdapterConfig, train_adapter

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")


@pytest.fixture
def base_model(tmp_path: Path, tokenizer: Any) -> Path:
    torch.manual_seed(1)
    model = pretrain.build_model(ModelConfig(64, 128, layers=2, heads=2, kv_heads=1, context_tokens=256), tokenizer)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.slow
@pytest.mark.parametrize("base", ["plain", "nf4"])
def test_losses_are_the_same_through_the_kernels(
    base: Any, base_model: Path, copy_items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # what a CPU without the interpreter does
    config = AdapterConfig(rank=4, epochs=1, rows_per_batch=2, learning_rate=1e-2, base=base)
    items = (copy_items * 40)[:700]
    curves, files = [], []
    for on_kernels in (False, True):
        out = tmp_path / f"adapter-{on_kernels}"
        train_adapter(base_model, items, out, config, seed=1, device="cpu", on_kernels=on_kernels)
        curves.append([json.loads(line)["loss"] for line in (out / "loss.jsonl").read_text().splitlines()])
        files.append(load_file(out / "adapter_model.safetensors"))
    assert len(curves[0]) >= 1
    assert curves[1] == pytest.approx(curves[0], rel=0.01)
    assert files[0].keys() == files[1].keys()
