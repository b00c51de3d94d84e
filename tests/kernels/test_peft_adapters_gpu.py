"""peft's models against the same patched on a GPU, in bfloat16: dropout, DoRA, an adapter for each sample."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_errors import assert_close, assert_gradients_close
from peft_pairs import MODELS, NAMES, adapted, config

from tiltyard_kernels import patch
from tiltyard_kernels.quantise import Int4, Nf4, QuantisedTensor, quantize_

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")]


@pytest.mark.parametrize("base", [None, Nf4(32), Int4(32)], ids=["plain", "nf4", "int4"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_dora_step_on_a_gpu(kind: str, base: Any, fused: Callable[[Any], None]) -> None:
    """In bfloat16, by the kernels: as near to float32 as the model's own step in bfloat16."""
    torch.manual_seed(0)
    model = adapted(kind, config(use_dora=True)).cuda().to(torch.bfloat16)
    plain = quantised_and_widened(model, base)
    patch(model)
    fused(model)
    found = [gpu_step(model), gpu_step(plain), gpu_step(copy.deepcopy(plain).float())]
    (loss, mine), (its_loss, its_gradients), (true_loss, true) = found
    assert abs(loss - true_loss) <= 1.1 * abs(its_loss - true_loss) + 2e-3
    assert_gradients_close(mine, true, its_gradients)


@pytest.mark.parametrize("kind", MODELS)
def test_dropout_on_a_gpu_is_repeated_and_unbiased(kind: str, fused: Callable[[Any], None]) -> None:
    """The same seed makes the same step, with checkpointing as well; many masks have peft's mean loss."""
    torch.manual_seed(0)
    plain = adapted(kind, config(lora_dropout=0.5)).cuda().to(torch.bfloat16).train()
    model = copy.deepcopy(plain)
    patch(model)
    fused(model)
    first = gpu_step(model, seed=3)
    again = gpu_step(model, seed=3)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    third = gpu_step(model, seed=3)
    for other in (again, third):
        assert other[0] == first[0]
        assert all(torch.equal(one, two) for one, two in zip(first[1], other[1], strict=True))
    assert gpu_step(model, seed=4)[0] != first[0]
    model.gradient_checkpointing_disable()
    losses = [torch.tensor([gpu_step(some, seed=seed)[0] for seed in range(40)]) for some in (model, plain)]
    deviation = (losses[0].var() / 40 + losses[1].var() / 40).sqrt()
    assert abs(losses[0].mean() - losses[1].mean()) < 4 * deviation + 2e-3


@pytest.mark.parametrize("base", [None, Nf4(32), Int4(32)], ids=["plain", "nf4", "int4"])
def test_adapters_of_samples_on_a_gpu(base: Any, fused: Callable[[Any], None]) -> None:
    model = adapted("llama", config(), config(r=3), config(r=7)).cuda().to(torch.bfloat16).eval()
    plain = quantised_and_widened(model, base)
    patch(model)
    fused(model)
    tokens = torch.randint(0, 50, (5, 6), generator=torch.Generator().manual_seed(2)).cuda()
    with torch.no_grad():
        y, peer, truth = (
            some(tokens, use_cache=False, adapter_names=NAMES).logits
            for some in (model, plain, copy.deepcopy(plain).float())
        )
    assert_close(y, truth.double(), peer=peer)


def quantised_and_widened(model: Any, base: Any) -> Any:
    """Quantise the model where a base is named, and give one with the same weights, widened."""
    plain = copy.deepcopy(model)
    if base is not None:
        quantize_(model, base)
        for module, its in zip(plain.modules(), model.modules(), strict=True):
            if isinstance(its, torch.nn.Linear) and isinstance(its.weight, QuantisedTensor):
                module.weight = torch.nn.Parameter(its.weight.dequantise(), requires_grad=False)
    return plain


def gpu_step(model: Any, seed: int = 0) -> tuple[float, list[torch.Tensor]]:
    tokens = torch.randint(0, 50, (2, 33), generator=torch.Generator().manual_seed(1)).cuda()
    torch.manual_seed(seed)
    loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    return float(loss), list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
