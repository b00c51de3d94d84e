"""The checkpoint and the adapters that stand in the repository."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiltyard_baselines.data import Item
from tiltyard_baselines.evaluate_local import accuracy_by_task
from tiltyard_baselines.serve.__main__ import _parse_arguments
from tiltyard_baselines.serve.engine import Engine
from tiltyard_baselines.serve.loading import load_model
from tiltyard_baselines.serve.runner import ModelRunner

BASELINES = Path(__file__).parents[2] / "baselines"
SQUIRE = BASELINES / "squire"
SUBMISSIONS = sorted((BASELINES / "submissions").iterdir())
EASY = [
    Item("Q: What is 2 + 3?\nA:", "5", "easy", 1),
    Item("Is 8 even or odd?\nAnswer:", "even", "easy", 1),
    Item("Q: Which is the largest: 3 8?\nA:", "8", "easy", 1),
    Item('User: What is letter 1 of "kato"?\nAssistant:', "k", "easy", 2),
]


def test_loads_like_any_checkpoint() -> None:
    model = AutoModelForCausalLM.from_pretrained(SQUIRE)
    tokenizer = AutoTokenizer.from_pretrained(SQUIRE)
    ids = tokenizer("Q: What is 2 + 3?\nA:", return_tensors="pt").input_ids
    answer = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == " 5\n"


def test_answers_easy_questions() -> None:
    engine = Engine(ModelRunner(*load_model(SQUIRE, None, "cpu"), slots=4, max_context_tokens=256))
    score = accuracy_by_task(engine, EASY)["easy"]
    engine.stop()
    assert score >= 0.75


@pytest.mark.parametrize("folder", SUBMISSIONS, ids=lambda folder: folder.name)
def test_submission_is_complete(folder: Path) -> None:
    manifest = yaml.safe_load((folder / "tiltyard.yaml").read_text(encoding="utf-8"))
    assert {"name", "base_model", "training_data", "licence"} <= manifest.keys()
    assert manifest["name"] == folder.name
    dockerfile = (folder / "Dockerfile").read_text(encoding="utf-8")
    assert "ARG BASE=tiltyard/runtime:cpu\nFROM ${BASE}\n" in dockerfile
    assert ("--adapter" in dockerfile) == (folder / "adapter" / "adapter_config.json").exists()
    assert (folder / "README.md").read_text(encoding="utf-8").startswith(f"# {folder.name}\n")
    adapter = {path.name for path in folder.glob("adapter/*")}
    assert adapter in (set(), {"adapter_config.json", "adapter_model.safetensors", "loss.jsonl", "loss.svg"})


@pytest.mark.parametrize("folder", SUBMISSIONS, ids=lambda folder: folder.name)
def test_server_takes_the_command_of_the_submission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dockerfile = (folder / "Dockerfile").read_text(encoding="utf-8")
    *start, command = dockerfile.partition("\nCMD ")
    python, _, module, *arguments = json.loads(command)
    assert (start[1], python, module) == ("\nCMD ", "python3", "tiltyard_baselines.serve")
    monkeypatch.setattr(sys, "argv", ["serve", *arguments])
    options = _parse_arguments()
    assert options.model == Path("/opt/squire")
    assert options.quantise == ("nf4" if folder.name == "qlora" else None)


def test_repository_stays_small() -> None:
    total_bytes = sum(path.stat().st_size for path in BASELINES.rglob("*") if path.is_file())
    assert total_bytes < 24 * 2**20


@pytest.mark.parametrize(("asked", "given"), [(None, torch.float32), ("bfloat16", torch.bfloat16)])
def test_dtype_can_be_chosen(asked: str | None, given: torch.dtype) -> None:
    model, _ = load_model(SQUIRE, None, "cpu", asked)
    assert {parameter.dtype for parameter in model.parameters()} == {given}
