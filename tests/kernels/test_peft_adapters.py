"""peft's models against the same patched: dropout, DoRA, several adapters at once and one for each sample."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_errors import assert_close, assert_gradients_close
from peft import LoraConfig, PeftModel, get_peft_model
from peft_pairs import MODELS, NAMES, TARGETS, adapted, assert_same, config, loss_and_gradients, pair, stir
from safetensors.torch import load_file

from tiltyard_kernels import Block, patch, unpatch
from tiltyard_kernels.blocks.dropout import kept_reference
from tiltyard_kernels.quantise import Int4, Nf4, QuantisedTensor, quantize_

# Between peft and transformers, whose names change.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def _reference_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole models in the interpreter would take minutes: its parts are tested in test_dropout.py and test_dora.py."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.parametrize("kind", MODELS)
def test_dropout_in_fused_layers_is_drawn_as_peft_draws_it(kind: str, fused: Callable[[Any], None]) -> None:
    """Without kernels the masks are torch's, in peft's order, so that losses and gradients are peft's to rounding."""
    plain, patched = pair(kind, config(lora_dropout=0.3))
    fused(patched)
    for model in (plain, patched):
        model.train()
    before = loss_and_gradients(patched)[0]
    assert_same(plain, patched)
    for model in (plain, patched):
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    assert_same(plain, patched)
    assert torch.equal(loss_and_gradients(patched)[0], before)
    for model in (plain, patched):
        model.eval()
    assert_same(plain, patched)
    assert not torch.equal(loss_and_gradients(patched)[0], before)


@pytest.mark.parametrize("targets", [TARGETS, ["q_proj", "v_proj", "up_proj"]], ids=["all", "some"])
@pytest.mark.parametrize("kind", MODELS)
def test_dora_in_fused_layers(kind: str, targets: list[str], fused: Callable[[Any], None]) -> None:
    plain, patched = pair(kind, config(use_dora=True, use_rslora=True, target_modules=targets))
    fused(patched)
    assert_same(plain, patched)
    with torch.no_grad():
        tokens = torch.tensor([[3, 4, 5]])
        torch.testing.assert_close(patched(tokens).logits, plain(tokens).logits, rtol=1e-4, atol=1e-5)


def test_dora_with_dropout_runs_by_linears() -> None:
    plain, patched = pair("llama", config(use_dora=True, lora_dropout=0.3))
    for model in (plain, patched):
        model.train()
    assert_same(plain, patched)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.3}], ids=["dora", "dropout"])
@pytest.mark.parametrize("base", [Nf4(32), Int4(32, symmetric=False)], ids=["nf4", "int4"])
def test_over_quantised_bases(base: Any, settings: dict[str, Any], fused: Callable[[Any], None]) -> None:
    patched = adapted("llama", config(**settings))
    quantize_(patched, base)
    plain = copy.deepcopy(patched)
    for module in plain.modules():
        if isinstance(module, torch.nn.Linear) and isinstance(module.weight, QuantisedTensor):
            module.weight = torch.nn.Parameter(module.weight.dequantise(), requires_grad=False)
    patch(patched)
    fused(patched)
    for model in (plain, patched):
        model.train()
    assert_same(plain, patched)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.3}], ids=["dora", "dropout"])
def test_under_autocast(settings: dict[str, Any], fused: Callable[[Any], None]) -> None:
    """Of models so small the ratio of squared errors scatters from 0.6 to 1.8, with plain LoRA as well."""
    mine = its = torch.zeros(())
    for seed in range(3):
        torch.manual_seed(seed)
        plain, patched = pair("llama", config(**settings))
        fused(patched)
        for model in (plain, patched):
            model.train()
        exact = loss_and_gradients(plain)
        with torch.autocast("cpu", torch.bfloat16):
            expected, found = loss_and_gradients(plain), loss_and_gradients(patched)
        assert abs(found[0] - exact[0]) < 0.02
        for name, truth in exact[1].items():
            mine = mine + (found[1][name] - truth).square().sum()
            its = its + (expected[1][name] - truth).square().sum()
    assert mine <= 2 * its


def test_dora_saves_peft_s_files(tmp_path: Path) -> None:
    plain, patched = pair("llama", config(use_dora=True))
    loss_and_gradients(patched)
    for name, model in (("plain", plain), ("patched", patched)):
        model.save_pretrained(tmp_path / name, save_embedding_layers=False)
    files = [load_file(tmp_path / name / "one" / "adapter_model.safetensors") for name in ("plain", "patched")]
    assert files[0].keys() == files[1].keys()
    assert any("lora_magnitude_vector" in name for name in files[0])
    for name, value in files[0].items():
        assert torch.equal(files[1][name], value), name
    configs = [
        json.loads((tmp_path / name / "one" / "adapter_config.json").read_text()) for name in ("plain", "patched")
    ]
    targets = [set(one.pop("target_modules")) for one in configs]  # a set's order differs between copies
    assert targets[0] == targets[1]
    assert configs[0] == configs[1]
    unpatch(patched)
    again = PeftModel.from_pretrained(
        copy.deepcopy(plain.unload()), tmp_path / "patched" / "one", adapter_name="one", is_trainable=True
    )
    assert_same(again, patched)


def test_several_active_adapters(fused: Callable[[Any], None]) -> None:
    """Of different ranks, scales, targets and dropout; then one of them alone."""
    others = config(r=3, target_modules=["q_proj", "down_proj"]), config(r=7, lora_dropout=0.5)
    plain, patched = pair("qwen2", config(), *others)
    fused(patched)
    for active in (["one", "two", "three"], ["two", "one"], ["three"]):
        for model in (plain, patched):
            model.base_model.set_adapter(active)
            model.train()
        assert_same(plain, patched)


@pytest.mark.filterwarnings("ignore:.*merging LoRA weights won't be possible")
def test_bias_of_an_adapter_and_merged_adapters(fused: Callable[[Any], None]) -> None:
    plain, patched = pair("llama", config(lora_bias=True, target_modules=["q_proj", "o_proj"]))
    fused(patched)
    assert_same(plain, patched)
    plain, patched = pair("llama", config())
    fused(patched)
    tokens = torch.tensor([[3, 4, 5]])
    expected = plain(tokens).logits
    patched(tokens)
    for step in ("merge_adapter", "unmerge_adapter"):
        getattr(patched, step)()
        torch.testing.assert_close(patched(tokens).logits, expected, rtol=1e-4, atol=1e-5)
    with plain.disable_adapter(), patched.disable_adapter():
        torch.testing.assert_close(patched(tokens).logits, plain(tokens).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_each_sample_its_own_adapter(kind: str, fused: Callable[[Any], None]) -> None:
    """Of different ranks, one of them in some linears only; with padding, without names in between, and generating."""
    plain, patched = pair(kind, config(), config(r=3, target_modules=["q_proj", "down_proj"]), config(r=7))
    fused(patched)
    tokens = torch.randint(0, 50, (5, 6), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(5, 6, dtype=torch.long)
    mask[1, :3] = 0
    for model in (plain, patched):
        model.eval()

    def logits(model: Any, names: Sequence[str] | None) -> torch.Tensor:
        made: torch.Tensor = model(tokens, attention_mask=mask, use_cache=False, adapter_names=names).logits
        return made

    with torch.inference_mode():
        mixed = logits(plain, NAMES)
        torch.testing.assert_close(logits(patched, NAMES), mixed, rtol=1e-4, atol=1e-5)
        alike = logits(patched, None)
        torch.testing.assert_close(alike, logits(plain, None), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(alike[0], mixed[0], atol=1e-3)
        alone = logits(patched, ["__base__"] * 5)
        torch.testing.assert_close(alone[1], mixed[1], rtol=1e-4, atol=1e-5)
    # With gradients, after inference mode has filled whatever is kept from call to call.
    for model in (plain, patched):
        model.base_model.set_adapter(["one", "three"])
    leaves = [[p for p in model.parameters() if p.requires_grad] for model in (plain, patched)]
    found = [
        torch.autograd.grad(logits(model, NAMES).square().sum(), some)
        for model, some in zip((plain, patched), leaves, strict=True)
    ]
    for gradient, its_truth in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(gradient, its_truth, rtol=2e-4, atol=2e-5)
    done = [
        model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=5,
            do_sample=False,
            adapter_names=NAMES,
            pad_token_id=0,
        )
        for model in (plain, patched)
    ]
    assert torch.equal(done[0], done[1])


def test_more_adapters_than_fit_a_product() -> None:
    """Ranks of 300 and 250: a product takes the samples of one. Queries, keys and values at once do not fit either."""
    plain, patched = pair("llama", config(r=300), config(r=250))
    assert_same(plain, patched)
    for model in (plain, patched):
        model.eval()
    tokens = torch.randint(0, 50, (3, 4))
    for whole in (True, False):
        unpatch(patched)
        patch(patched, whole_layers=whole)
        with torch.no_grad():
            found, expected = (
                model(tokens, adapter_names=["two", "__base__", "one"]).logits for model in (patched, plain)
            )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_peft_refuses_is_refused_with_peft_s_words() -> None:
    _, patched = pair("llama", config(use_dora=True))
    patched.eval()
    tokens = torch.tensor([[3, 4, 5]] * 2)
    with pytest.raises(ValueError, match="Cannot pass `adapter_names` when DoRA is enabled"):
        patched(tokens, adapter_names=["one", "__base__"])
    _, patched = pair("llama", config())
    patched.eval()
    with pytest.raises(ValueError, match="Length of `adapter_names` should be the same"):
        patched(tokens, adapter_names=["one"])
    patched.merge_adapter()
    with pytest.raises(ValueError, match="when there are merged adapters"):
        patched(tokens, adapter_names=["one", "__base__"])


def test_hooks_in_a_layer_are_called() -> None:
    plain, patched = pair("llama", config())
    layer = patched.base_model.model.model.layers[0]
    places = (layer.self_attn.q_proj, layer.self_attn.v_proj.base_layer, layer.mlp.up_proj.lora_A["one"], layer.mlp)
    calls = []
    handles = [place.register_forward_hook(lambda module, *_: calls.append(module)) for place in places]
    assert_same(plain, patched)
    assert calls == list(places)
    for handle in handles:
        handle.remove()
    assert_same(plain, patched)
    assert len(calls) == len(places)


def test_a_block_over_peft_s_own_linears() -> None:
    plain = adapted("llama", config(use_dora=True))
    exchanged = copy.deepcopy(plain)
    layers = exchanged.base_model.model.model.layers
    for index, layer in enumerate(layers):
        layers[index] = Block(layer)
    assert_same(plain, exchanged)


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_one_peft_linear_by_kernels(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter or on the GPU: with the masks that its seed gives, what peft computes with the same masks."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    base = torch.nn.Sequential(torch.nn.Linear(40, 72))
    model: Any = get_peft_model(
        base, LoraConfig(r=8, lora_alpha=8, target_modules=["0"], lora_dropout=0.25, **settings)
    )
    model = model.to(device)
    stir(model)
    patched = copy.deepcopy(model)
    assert patch(patched).linears == ["base_model.model.0"]
    x = torch.randn(3, 7, 40, device=device)
    torch.manual_seed(4)
    seed = int(torch.randint(2**63 - 1, (1,), device=device))
    mask = kept_reference(seed, 21, 40, 0.25).to(device) / 0.75

    class Masked(torch.nn.Module):
        def forward(self, seen: torch.Tensor) -> torch.Tensor:
            return seen * mask.view(seen.shape).to(seen.dtype)

    model.base_model.model[0].lora_dropout["default"] = Masked()
    wide = copy.deepcopy(model).double()
    torch.manual_seed(4)
    y, peer, truth = patched(x), model(x), wide(x.double())
    assert_close(y, truth, peer=peer)
    dy = torch.randn_like(truth)
    gradients = [
        torch.autograd.grad(value, [p for p in some.parameters() if p.requires_grad], dy.to(value.dtype))
        for value, some in ((y, patched), (peer, model), (truth, wide))
    ]
    assert_gradients_close(gradients[0], gradients[2], gradients[1])
