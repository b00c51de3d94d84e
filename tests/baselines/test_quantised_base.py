"""QLoRA: a base in four bits, an adapter trained over it and served beside it, held to plain matrix products."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiltyard_baselines.config import ModelConfig
from tiltyard_baselines.data import Item, batches, encode_items
from tiltyard_baselines.evaluate_local import accuracy_by_task
from tiltyard_baselines.lora import ROW_TOKENS, AdapterConfig, add_adapter, run_on_kernels, train_adapter
from tiltyard_baselines.pretrain import build_model, save_checkpoint
from tiltyard_baselines.quantised import LINEAR_LAYERS, quantise_base
from tiltyard_baselines.serve.engine import Engine
from tiltyard_baselines.serve.jobs import GenerationJob
from tiltyard_baselines.serve.loading import load_model, runs_on_kernels
from tiltyard_baselines.serve.runner import ModelRunner
from tiltyard_baselines.training import weighted_loss
from tiltyard_kernels.quantise import Nf4Tensor

# peft 0.21 still asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")

BASELINES = Path(__file__).parents[2] / "baselines"
SQUIRE = BASELINES / "squire"
ADAPTER = BASELINES / "submissions" / "qlora" / "adapter"
PROMPTS = [
    "Q: What is 27 + 58?\nA:",
    "Sort these numbers from smallest to largest: 31 7 22 15\nAnswer:",
    "Q: Reverse the list: kato mira lune\nA:",
    'User: What are the last 3 letters of "belomir"?\nAssistant:',
    "Q: Which number comes next: 3, 7, 11, 15?\nA:",
    "something that no family asks",
]
MAX_TOKENS = 16


@pytest.fixture(scope="module")
def base_model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of whole groups, and weights large enough that rounding them to four bits shows."""
    torch.manual_seed(2)
    model = build_model(ModelConfig(64, 128, layers=2, heads=4, kv_heads=2, context_tokens=256), tokenizer).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    folder = tmp_path_factory.mktemp("base")
    save_checkpoint(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base_model: Path, copy_items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    config = AdapterConfig(rank=8, epochs=400, learning_rate=1e-2, rows_per_batch=2, base="nf4")
    train_adapter(base_model, copy_items, folder, config, seed=1, device="cpu")
    return folder


class WidenedLinear(nn.Module):
    """y = x · Wᵀ + s · (x · Aᵀ) · Bᵀ with W the NF4 weight widened: what QLoRA is, in three products."""

    def __init__(self, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.weight = Nf4Tensor.quantise(weight.detach(), 64).dequantise(torch.float32)
        self.a, self.b, self.scale = a.float(), b.float(), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.t() + self.scale * (x @ self.a.t()) @ self.b.t()


def reference_model(base: Path, adapter: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    config = json.loads((adapter / "adapter_config.json").read_text())
    weights = load_file(adapter / "adapter_model.safetensors")
    for name, module in list(model.named_modules()):
        parent, _, own = name.rpartition(".")
        if own in LINEAR_LAYERS:
            a, b = (weights.pop(f"base_model.model.{name}.lora_{part}.weight") for part in "AB")
            linear = WidenedLinear(module.weight, a, b, config["lora_alpha"] / config["r"])
            setattr(model.get_submodule(parent), own, linear)
    assert not weights  # the adapter has nothing else
    return model


def served_answers(base: Path, adapter: Path, prompts: list[str], *, on_kernels: bool) -> list[list[int]]:
    model, tokenizer = load_model(base, adapter, "cpu", quantise="nf4", on_kernels=on_kernels)
    engine = Engine(ModelRunner(model, tokenizer, slots=4, max_context_tokens=256))
    jobs = [GenerationJob(engine.runner.encode(prompt), MAX_TOKENS) for prompt in prompts]
    engine.submit(jobs)
    answers = [list(job.done.result(60).token_ids) for job in jobs]
    engine.stop()
    return answers


def reference_answers(base: Path, adapter: Path, prompts: list[str]) -> list[list[int]]:
    model, tokenizer = reference_model(base, adapter), AutoTokenizer.from_pretrained(base)
    answers = []
    for prompt in prompts:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        made = model.generate(ids, max_new_tokens=MAX_TOKENS, do_sample=False)
        answers.append(made[0, ids.shape[1] :].tolist())
    return answers


@pytest.mark.parametrize("on_kernels", [False, True])
def test_serving_answers_as_plain_products_do(on_kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # what a CPU without the interpreter does
    answers = served_answers(SQUIRE, ADAPTER, PROMPTS, on_kernels=on_kernels)
    assert answers == reference_answers(SQUIRE, ADAPTER, PROMPTS)
    assert len({tuple(answer) for answer in answers}) > 3  # the model is not constant


def test_small_models_are_served_alike(base_model: Path, adapter: Path) -> None:
    prompts = ["Say a.\nAnswer:", "Say k.\nAnswer:", "b c d", "Answer: h Say"]
    answers = served_answers(base_model, adapter, prompts, on_kernels=False)
    assert answers == reference_answers(base_model, adapter, prompts)
    plain = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)
    merged = PeftModel.from_pretrained(plain, adapter).merge_and_unload().eval()
    served, _ = load_model(base_model, adapter, "cpu", quantise="nf4")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        widened = reference_model(base_model, adapter)(ids).logits
        torch.testing.assert_close(served(ids).logits, widened, rtol=1e-4, atol=1e-4)
        assert (merged(ids).logits - widened).abs().max() > 0.1  # four bits are not the plain weights


def test_base_stays_in_four_bits_with_the_adapter_beside_it() -> None:
    model, _ = load_model(SQUIRE, ADAPTER, "cpu", quantise="nf4")
    bases = [module for name, module in model.named_modules() if name.endswith("base_layer")]
    assert len(bases) == 7 * model.config.num_hidden_layers
    assert all(isinstance(base.weight, Nf4Tensor) for base in bases)
    stored_bits = 8 * sum(part.nbytes for base in bases for part in base.weight.parts.values())
    assert stored_bits / sum(base.weight.numel() for base in bases) < 4.3
    adapters = [name for name, _ in model.named_parameters() if "lora_" in name]
    assert len(adapters) == 2 * len(bases)
    assert not any(isinstance(p, Nf4Tensor) for p in (model.get_input_embeddings().weight, model.lm_head.weight))


def test_training_lowers_the_loss_and_teaches(base_model: Path, adapter: Path, copy_items: list[Item]) -> None:
    losses = [json.loads(line)["loss"] for line in (adapter / "loss.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] / 2
    model = load_model(base_model, adapter, "cpu", quantise="nf4")
    engine = Engine(ModelRunner(*model, slots=16, max_context_tokens=128))
    score = accuracy_by_task(engine, copy_items)["copy"]
    engine.stop()
    assert score > 0.8


@pytest.mark.parametrize("on_kernels", [False, True])
def test_only_the_adapter_gets_gradients(
    on_kernels: bool, base_model: Path, copy_items: list[Item], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    model = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)
    quantise_base(model)
    model = add_adapter(model, rank=4, seed=1)
    if on_kernels:
        run_on_kernels(model)
    with torch.no_grad():  # B begins as 0, through which A would get a gradient of 0
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    batch = next(batches(encode_items(copy_items, tokenizer, ROW_TOKENS), 2, ROW_TOKENS, 0.0, 1))
    output = model(batch.tokens, position_ids=batch.positions, attention_mask=batch.attention_mask(), use_cache=False)
    weighted_loss(output.logits, batch)[0].backward()  # type: ignore[no-untyped-call]
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    adapters = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert touched == adapters
    assert len(adapters) == 2 * 7 * 2
    assert all(model.get_parameter(name).grad.abs().max() > 0 for name in adapters)


def test_saved_adapter_loads_in_plain_peft(base_model: Path, adapter: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(plain, adapter)
    saved = load_file(adapter / "adapter_model.safetensors")
    found = {name.replace(".default", ""): value for name, value in loaded.named_parameters() if "lora_" in name}
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], saved[name].float()) for name in saved)
    assert any(saved[name].abs().max() > 0 for name in saved if "lora_B" in name)
    loaded.merge_and_unload()  # as any adapter's


def test_what_cannot_be_quantised_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="groups of 64 do not divide the 32 columns"):
        load_model(checkpoint, None, "cpu", quantise="nf4")
    with pytest.raises(ValueError, match="has no linear named"):
        quantise_base(nn.Sequential(nn.Linear(64, 64)))
    with pytest.raises(ValueError, match="cannot quantise to 'int3'"):
        load_model(checkpoint, None, "cpu", quantise="int3")


def test_codes_of_other_libraries_stay_bytes() -> None:
    linear = nn.Linear(8, 8, bias=False)
    linear.weight = nn.Parameter(torch.arange(32, dtype=torch.uint8), requires_grad=False)  # as bitsandbytes keeps them
    run_on_kernels(nn.ModuleDict({"base_layer": linear}))
    assert torch.equal(linear.weight, torch.arange(32, dtype=torch.uint8))
    assert linear.weight.dtype == torch.uint8


@pytest.mark.parametrize(
    ("device", "quantise", "columns", "expected"),
    [
        ("cuda", None, 256, False),
        ("cuda:1", None, 4096, True),
        ("cuda", "nf4", 256, True),
        ("cpu", None, 4096, False),
        ("cpu", "nf4", 4096, False),
    ],
)
def test_kernels_run_where_they_pay(device: str, quantise: str | None, columns: int, expected: bool) -> None:
    assert runs_on_kernels(device, quantise, columns) is expected
