"""A patched model against the model as it was: losses, gradients, checkpoints; Llama, Qwen 2 and Qwen 3."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from kernel_errors import assert_gradients_close
from peft import LoraConfig, PeftModel, get_peft_model
from peft_pairs import MODELS, TARGETS

from tiltyard_kernels import Block, patch, unpatch
from tiltyard_kernels.quantise import Int4, Nf4, QuantisedTensor, quantize_

# Between peft and transformers, whose names change.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def _reference_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole models in the interpreter would take minutes; its parts are tested in test_adapted.py."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def adapted(model: torch.nn.Module, **settings: Any) -> Any:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=settings.pop("target_modules", TARGETS), **settings)
    made = get_peft_model(model, config)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def loss_and_gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    tokens = torch.randint(0, 50, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, :3] = 0
    loss = model(input_ids=tokens, attention_mask=mask, labels=tokens, use_cache=False).loss
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


@pytest.mark.parametrize("name", MODELS)
def test_adapters_train_alike(name: str) -> None:
    plain = adapted(MODELS[name]())
    patched = copy.deepcopy(plain)
    done = patch(patched)
    assert (len(done.layers), len(done.linears)) == (2, 14)
    assert_same(plain, patched)


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_train_alike(name: str) -> None:
    plain = MODELS[name]()
    patched = copy.deepcopy(plain)
    patch(patched)
    assert_same(plain, patched)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True, "target_modules": ["q_proj", "up_proj"]},
        {"use_dora": True},
        {"bias": "lora_only"},
    ],
)
def test_other_adapters(settings: dict[str, Any]) -> None:
    plain = adapted(MODELS["llama"](), **settings)
    patched = copy.deepcopy(plain)
    patch(patched)
    assert_same(plain, patched)


def test_head_norms_stay_their_own_modules_where_the_part_cannot_do_them() -> None:
    """Under DoRA, and where somebody listens."""
    plain = adapted(MODELS["qwen3"](), use_dora=True)
    patched = copy.deepcopy(plain)
    patch(patched)
    assert_same(plain, patched)
    heard: list[int] = []
    listened = adapted(MODELS["qwen3"]())
    patch(listened)
    listened.get_base_model().model.layers[0].self_attn.q_norm.register_forward_hook(lambda *_: heard.append(1))
    loss_and_gradients(listened)
    assert heard == [1]


def test_dropout_is_drawn_as_peft_draws_it() -> None:
    plain = adapted(MODELS["llama"](), lora_dropout=0.3).train()
    patched = copy.deepcopy(plain)
    patch(patched, whole_layers=False)
    assert_same(plain, patched)


@pytest.mark.parametrize("config", [Nf4(32), Int4(32, symmetric=False)])
def test_quantised_bases_train_like_their_widened_weights(config: Nf4 | Int4) -> None:
    patched = adapted(MODELS["llama"]())
    quantize_(patched, config)
    plain = copy.deepcopy(patched)
    for module in plain.modules():
        if isinstance(module, torch.nn.Linear) and isinstance(module.weight, QuantisedTensor):
            module.weight = torch.nn.Parameter(module.weight.dequantise(), requires_grad=False)
    patch(patched)
    assert_same(plain, patched)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_documents_side_by_side_do_not_see_each_other(name: str) -> None:
    plain = adapted(MODELS[name]())
    patched = copy.deepcopy(plain)
    patch(patched)
    tokens = torch.randint(0, 50, (2, 9))
    document = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1], [2, 2, 3, 3, 3, 3, 3, 3, 3]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 0, 1, 2, 3, 4, 5, 6]])
    mask = ((document[:, :, None] == document[:, None, :]) & torch.ones(9, 9, dtype=torch.bool).tril())[:, None]
    bounds = torch.tensor([0, 4, 9, 11, 18], dtype=torch.int32)
    expected = plain(input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False).logits
    found = patched(input_ids=tokens, position_ids=positions, cu_seq_lens_q=bounds, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_under_autocast() -> None:
    plain = adapted(MODELS["llama"]())
    patched = copy.deepcopy(plain)
    patch(patched)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = loss_and_gradients(plain), loss_and_gradients(patched)
    exact = loss_and_gradients(plain)
    assert abs(found[0] - exact[0]) < 0.02
    mine = sum((found[1][name] - exact[1][name]).square().sum() for name in exact[1])
    peers = sum((expected[1][name] - exact[1][name]).square().sum() for name in exact[1])
    assert mine <= 1.1 * peers


def test_weights_come_back_unchanged_and_adapters_save(tmp_path: Path) -> None:
    plain = adapted(MODELS["llama"]())
    patched = copy.deepcopy(plain)
    patch(patched)
    loss_and_gradients(patched)
    patched.save_pretrained(tmp_path, save_embedding_layers=False)
    assert patched.state_dict().keys() == plain.state_dict().keys()
    unpatch(patched)
    for name, value in plain.state_dict().items():
        assert torch.equal(patched.state_dict()[name], value), name
        assert patched.state_dict()[name].is_contiguous()
    assert_same(plain, patched)
    again = PeftModel.from_pretrained(copy.deepcopy(plain.unload()), tmp_path, is_trainable=True)
    torch.testing.assert_close(loss_and_gradients(again)[0], loss_and_gradients(patched)[0])


def shifted(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)


def test_a_deep_copy_runs_its_own_weights() -> None:
    plain = adapted(MODELS["llama"]())
    patched = copy.deepcopy(plain)
    patch(patched)
    before = loss_and_gradients(patched)[0]
    copies = [copy.deepcopy(patched), pickle.loads(pickle.dumps(patched))]  # noqa: S301  # our own bytes
    shifted(plain)
    for copied in copies:
        shifted(copied)
        assert_same(plain, copied)
        assert torch.equal(loss_and_gradients(patched)[0], before)
        unpatch(copied)
        assert_same(plain, copied)
    assert not torch.equal(loss_and_gradients(plain)[0], before)


class Counting(ModelHook):  # type: ignore[misc]
    """accelerate's way of getting at what goes into a module."""

    def __init__(self) -> None:
        self.calls = 0

    def pre_forward(self, _module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return args, kwargs


def test_forwards_that_others_replaced_are_left_and_named() -> None:
    plain = adapted(MODELS["llama"]())
    patched = copy.deepcopy(plain)
    layers = patched.base_model.model.model.layers
    hooks = {name: Counting() for name in ("linear", "in a linear", "norm")}
    places = {
        "linear": layers[0].self_attn.q_proj,
        "in a linear": layers[0].mlp.up_proj.base_layer,
        "norm": layers[1].input_layernorm,
    }
    for name, hook in hooks.items():
        add_hook_to_module(places[name], hook)
    done = patch(patched)
    layer = "base_model.model.model.layers"
    assert done.left == [f"{layer}.0.self_attn.q_proj", f"{layer}.0.mlp.up_proj", f"{layer}.0", f"{layer}.1"]
    assert (len(done.layers), len(done.linears)) == (0, 12)
    assert_same(plain, patched)
    assert {name: hook.calls for name, hook in hooks.items()} == dict.fromkeys(hooks, 1)
    unpatch(patched)
    assert_same(plain, patched)
    assert {name: hook.calls for name, hook in hooks.items()} == dict.fromkeys(hooks, 2)
    for place in places.values():
        remove_hook_from_module(place)
    done = patch(patched)
    assert (len(done.layers), len(done.linears), done.left) == (2, 14, [])
    assert_same(plain, patched)


def test_a_forward_replaced_after_patching_is_not_lost() -> None:
    plain = adapted(MODELS["llama"]())
    patched = copy.deepcopy(plain)
    patch(patched)
    layer, hook = patched.base_model.model.model.layers[1], Counting()
    add_hook_to_module(layer, hook)
    assert_same(plain, patched)
    assert hook.calls == 1
    with pytest.raises(ValueError, match=r"forward of 'base_model.model.model.layers.1' was replaced after patch"):
        unpatch(patched)
    assert_same(plain, patched)
    assert hook.calls == 2
    remove_hook_from_module(layer)
    unpatch(patched)
    assert_same(plain, patched)
    assert not any("forward" in module.__dict__ for module in patched.modules())


def test_generates_with_a_cache_and_checkpoints_gradients() -> None:
    plain = adapted(MODELS["llama"]()).eval()
    patched = copy.deepcopy(plain)
    patch(patched)
    tokens = torch.tensor([[3, 4, 5]])
    assert torch.equal(*(m.generate(input_ids=tokens, max_new_tokens=6, do_sample=False) for m in (plain, patched)))
    for model in (plain, patched):
        model.train().gradient_checkpointing_enable()
        model.enable_input_require_grads()
    assert_same(plain, patched)


def test_a_block_stands_for_a_layer() -> None:
    plain = MODELS["llama"]()
    exchanged = copy.deepcopy(plain)
    for index, layer in enumerate(exchanged.model.layers):
        exchanged.model.layers[index] = Block(layer)
    exchanged.load_state_dict(plain.state_dict())
    assert_same(plain, exchanged)
    with pytest.raises(ValueError, match="Linear is no layer that a Block can stand for"):
        Block(torch.nn.Linear(2, 2))


@pytest.mark.gpu
@pytest.mark.parametrize("base", [None, Nf4(32), Int4(32)], ids=["plain", "nf4", "int4"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_step_on_a_gpu(kind: str, base: Any) -> None:
    """In bfloat16, by the kernels: as near to float32 as the model's own step in bfloat16."""
    torch.manual_seed(0)
    model = adapted(MODELS[kind]()).cuda().to(torch.bfloat16)
    if base is not None:
        quantize_(model, base)
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if isinstance(module, torch.nn.Linear) and isinstance(module.weight, QuantisedTensor):
            module.weight = torch.nn.Parameter(module.weight.dequantise(), requires_grad=False)
    patch(model)
    found = [gpu_step(model), gpu_step(plain), gpu_step(copy.deepcopy(plain).float())]
    (loss, mine), (its_loss, its), (true_loss, true) = found
    assert abs(loss - true_loss) <= 1.1 * abs(its_loss - true_loss) + 2e-3
    assert_gradients_close(mine, true, its)


def gpu_step(model: Any) -> tuple[float, list[torch.Tensor]]:
    tokens = torch.randint(0, 50, (2, 33), generator=torch.Generator().manual_seed(1)).cuda()
    loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    return float(loss), list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
