import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tiltyard_baselines import pretrain
from tiltyard_baselines.config import PRESETS, ModelConfig, Preset, TrainConfig
from tiltyard_baselines.data import Item, batches, encode_items
from tiltyard_baselines.training import Schedule, build_optimizers, train


def write_items(path: Path, items: list[Item]) -> None:
    path.write_text("".join(json.dumps(vars(item)) + "\n" for item in items))


def test_training_lowers_the_loss(tmp_path: Path, tokenizer: Any, copy_items: list[Item]) -> None:
    torch.manual_seed(1)
    model = pretrain.build_model(ModelConfig(64, 128, layers=2, heads=2, kv_heads=2, context_tokens=64), tokenizer)
    log = tmp_path / "loss.jsonl"
    steps = train(
        model,
        batches(encode_items(copy_items, tokenizer, 64), 8, 64, 0.1, seed=1),
        build_optimizers(model, muon_lr=0.02, adam_lr=5e-3, weight_decay=0.0),
        Schedule(60, math.inf, 0.05, 0.5),
        device=torch.device("cpu"),
        log_path=log,
    )
    losses = [json.loads(line)["answer_loss"] for line in log.read_text().splitlines()]
    assert steps == 60
    assert losses[-1] < losses[0] / 4


def test_schedule_warms_up_stays_and_decays() -> None:
    schedule = Schedule(max_steps=100, wall_s=50.0, warmup_fraction=0.1, decay_fraction=0.5)
    assert schedule.scale(schedule.progress(5, 0.0)) == pytest.approx(0.5)
    assert schedule.scale(schedule.progress(30, 0.0)) == 1.0
    assert schedule.scale(schedule.progress(75, 0.0)) == pytest.approx(0.5)
    assert schedule.progress(10, 25.0) == 0.5  # time is further along than steps
    assert schedule.scale(schedule.progress(500, 0.0)) == 0.0


def test_command_writes_a_loadable_checkpoint(
    tmp_path: Path, copy_items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = Preset(
        ModelConfig(32, 64, layers=1, heads=2, kv_heads=1, context_tokens=64),
        TrainConfig(rows_per_batch=2, wall_s=60, max_steps=20, muon_lr=0.02, adam_lr=2e-3),
    )
    monkeypatch.setitem(PRESETS, "cpu", tiny)
    write_items(tmp_path / "items.jsonl", copy_items)
    out = tmp_path / "model"
    arguments = ["pretrain", "--data", str(tmp_path / "items.jsonl"), "--out", str(out), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", arguments)
    pretrain.main()
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert json.loads((out / "loss.jsonl").read_text().splitlines()[-1])["step"] == 20
    assert (out / "loss.svg").read_text().startswith("<svg")
    assert (out / "model.safetensors").stat().st_mode & 0o044 == 0o044
