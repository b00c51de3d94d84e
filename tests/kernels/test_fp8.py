"""fp8 times fp8 with scales by rows: the scaled mainloop, its passes, linears over such a base, and whole layers."""

from typing import Any

import pytest
import torch
from kernel_errors import assert_close, relative_error
from torch import nn

from tiltyard_kernels.blocks import programs
from tiltyard_kernels.epilogue import evaluate
from tiltyard_kernels.gemm import LowRank, Scales, gemm, matmul
from tiltyard_kernels.lora import lora_linear
from tiltyard_kernels.quantise import DynamicFp8Tensor, Fp8, Fp8Tensor, fp8, quantize_
from tiltyard_kernels.quantise.formats import FP8

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
HAS_FP8 = not torch.cuda.is_available() or torch.cuda.get_device_capability() >= (8, 9)
needs_fp8 = pytest.mark.skipif(not HAS_FP8, reason="this GPU does not multiply fp8")


@pytest.mark.parametrize("rank", [0, 16, 72])
@pytest.mark.parametrize("has_columns", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scales_of_rows_and_columns(dtype: torch.dtype, has_columns: bool, rank: int, device: torch.device) -> None:
    a, w = (torch.randn(rows, 72, device=device).to(dtype) for rows in (99, 130))
    rows, columns = torch.rand(99, device=device) + 0.1, torch.rand(130, device=device) + 0.1
    scales = Scales(rows, columns if has_columns else None)
    truth = (a.double() @ w.double().t()) * rows.double()[:, None] * (columns.double() if has_columns else 1)
    low_rank = None
    if rank:
        p, q = (torch.randn(n, rank, device=device).to(dtype) for n in (99, 130))
        low_rank = LowRank(p, q.t())
        truth = truth + p.double() @ q.double().t()
    assert_close(matmul(a, w.t(), scales=scales, low_rank=low_rank), truth)


def test_programs_see_the_scaled_product(device: torch.device) -> None:
    a, w, z = torch.randn(40, 32, device=device), torch.randn(48, 32, device=device), torch.randn(40, 96, device=device)
    rows = torch.rand(40, device=device) + 0.5
    made = gemm(a, w.t(), programs.swiglu_backward, scales=Scales(rows), z=z)
    truth = evaluate(
        programs.swiglu_backward, (a.double() @ w.double().t()) * rows.double()[:, None], {"z": z.double()}
    )
    for name, value in made.items():
        assert_close(value, truth[name])


def test_few_rows_are_scaled_too(device: torch.device) -> None:
    a, w = torch.randn(3, 64, device=device).half(), torch.randn(48, 64, device=device).half()
    rows = torch.rand(3, device=device)
    assert_close(matmul(a, w.t(), scales=Scales(rows)), (a.double() @ w.double().t()) * rows.double()[:, None])


def test_what_does_not_fit_is_named(device: torch.device) -> None:
    a, b, rows = torch.ones(4, 8, device=device), torch.ones(8, 6, device=device), torch.ones(4, device=device)
    with pytest.raises(ValueError, match=r"scales: rows are \(3,\) of torch.float32; they must be \(4,\)"):
        matmul(a, b, scales=Scales(rows[:3]))
    with pytest.raises(
        ValueError, match=r"scales: columns are \(6,\) of torch.float16; they must be \(6,\) of torch.fl"
    ):
        matmul(a, b, scales=Scales(rows, torch.ones(6, device=device).half()))
    codes = torch.ones(4, 16, device=device).to(FP8)
    p = torch.ones(4, 8, device=device).half()
    with pytest.raises(ValueError, match=r"a is torch.float8_e4m3fn; they must be torch.bfloat16"):
        matmul(codes, codes.t(), low_rank=LowRank(p, p.t()))


@pytest.mark.parametrize("columns", [16, 100, 9000])
@pytest.mark.parametrize("has_fold", [True, False])
def test_rows_are_quantised(has_fold: bool, columns: int, device: torch.device) -> None:
    """To float16 as well, whose rounding leaves the scales to be seen and which the interpreter has."""
    x = torch.randn(5, columns, device=device).half()
    x[3] = 0
    fold = torch.rand(columns, device=device) + 0.1 if has_fold else None
    wanted = x.double() if fold is None else x.double() * fold.double()
    codes, scale = fp8.quantise_rows(x, fold, torch.float16)
    assert relative_error(scale.double()[:, None] * codes.double(), wanted) < 6e-4
    assert float(codes.abs().max()) <= torch.finfo(torch.float16).max
    assert_close(scale[:3], wanted[:3].abs().amax(1) / torch.finfo(torch.float16).max)


@needs_fp8
def test_rows_are_quantised_to_fp8_as_defined(device: torch.device) -> None:
    x = torch.randn(70, 600, device=device).bfloat16()
    codes, scale = fp8.quantise_rows(x)
    wide = x.float()
    expected = (wide.abs().amax(1) / 448).clamp_min(1e-12)
    torch.testing.assert_close(scale, expected, rtol=1e-6, atol=0)
    assert relative_error(codes.float() * scale[:, None], wide) < 0.03
    assert float((codes.float() - (wide / scale[:, None]).to(FP8).float()).abs().max()) <= 32  # one step at the top


@pytest.mark.parametrize("is_interleaved", [True, False])
def test_codes_are_transposed(is_interleaved: bool, device: torch.device) -> None:
    parts = [torch.randint(0, 127, (70, 40), dtype=torch.uint8, device=device).view(FP8) for _ in range(2)]
    whole = torch.stack(parts, 1).flatten(0, 1) if is_interleaved else torch.cat([p.view(torch.uint8) for p in parts])
    found = fp8.transposed(parts, is_interleaved=is_interleaved).view(torch.uint8)
    assert torch.equal(found, whole.view(torch.uint8).t())
    assert torch.equal(fp8.transposed(parts[:1], is_interleaved=True).view(torch.uint8), parts[0].view(torch.uint8).t())


def own(codes: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """PyTorch's product of fp8 with scales by rows: its kernel on a GPU, the same numbers widened elsewhere."""
    if codes.device.type == "cuda":
        return torch._scaled_mm(
            codes, weight.t(), scale_a=rows[:, None], scale_b=columns[None, :], out_dtype=torch.bfloat16
        )
    return ((codes.float() * rows[:, None]) @ (weight.float() * columns[:, None]).t()).bfloat16()


@needs_fp8
@pytest.mark.parametrize("shape", [(256, 384, 512), (200, 144, 272)])
def test_product_beside_pytorchs_own(shape: tuple[int, int, int], device: torch.device) -> None:
    """Against the float64 product of the unquantised matrices no further off than PyTorch's own fp8, within 10 %."""
    m, n, k = shape
    x, w = torch.randn(m, k, device=device).bfloat16(), torch.randn(n, k, device=device).bfloat16()
    weight = DynamicFp8Tensor.quantise(w)
    codes, rows = fp8.quantise_rows(x)
    truth = x.double() @ w.double().t()
    assert_close(nn.functional.linear(x, weight), truth, peer=own(codes, rows, weight.values, weight.scale))


@needs_fp8
def test_gradient_beside_pytorchs_own(device: torch.device) -> None:
    """dX, whose peer quantises dy and the transposed weight by rows anew, as TorchAO does."""
    x = torch.randn(256, 320, device=device).bfloat16().requires_grad_()
    w = torch.randn(272, 320, device=device).bfloat16()
    dy = torch.randn(256, 272, device=device).bfloat16()
    (dx,) = torch.autograd.grad(nn.functional.linear(x, DynamicFp8Tensor.quantise(w)), x, dy)
    turned = w.t().contiguous()
    codes, rows = fp8.quantise_rows(dy)
    values, columns = fp8.quantise_rows(turned)
    assert_close(dx, dy.double() @ w.double(), peer=own(codes, rows, values, columns))


@needs_fp8
@pytest.mark.parametrize("rank", [8, 80])
def test_adapters_beside_an_fp8_product(rank: int, device: torch.device) -> None:
    """What an adapter adds is not rounded to fp8: with the base's part taken out it is as near as in bfloat16."""
    x = torch.randn(200, 256, device=device).bfloat16()
    weight = DynamicFp8Tensor.quantise(torch.randn(160, 256, device=device).bfloat16() * 0.06)
    a = (torch.randn(rank, 256, device=device) * 0.06).bfloat16()
    b = torch.randn(160, rank, device=device).bfloat16()
    without = nn.functional.linear(x, weight)
    y = lora_linear(x, weight, a, b, scale=2.0)
    truth = 2.0 * (x.double() @ a.double().t()) @ b.double().t()
    assert relative_error(y.double() - without.double(), truth) < 1e-2


def test_few_rows_and_other_types_are_widened(device: torch.device) -> None:
    w = torch.randn(48, 64, device=device).half()
    x = torch.randn(200, 64, device=device).half()
    same = Fp8Tensor.quantise(w)
    assert torch.equal(nn.functional.linear(x, DynamicFp8Tensor.quantise(w)), nn.functional.linear(x, same))
    few = x[:5]
    assert torch.equal(nn.functional.linear(few, DynamicFp8Tensor.quantise(w)), nn.functional.linear(few, same))


@needs_fp8
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft beside transformers 5.23
def test_a_layer_over_an_fp8_base(device: torch.device) -> None:
    """Outputs and gradients of a patched peft model, as far from the widened base's as fp8 allows."""
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    from tiltyard_kernels import patch  # noqa: PLC0415  # beside what may not be there

    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    results: list[tuple[torch.Tensor, list[torch.Tensor]]] = []
    tokens, weights = torch.randint(0, 32, (2, 80), device=device), torch.randn(2, 80, 64, device=device)
    for base, is_patched in ((None, False), (Fp8(), True), (Fp8(dynamic=True), True)):
        torch.manual_seed(3)
        model: Any = transformers.LlamaForCausalLM(config).to(device=device, dtype=torch.bfloat16)
        lora = peft.LoraConfig(
            r=8, target_modules=["q_proj", "o_proj", "up_proj", "down_proj"], init_lora_weights=False
        )
        model = peft.get_peft_model(model, lora)
        if base is not None:
            quantize_(model, base)
        if is_patched:
            patch(model)
        hidden = model.base_model.model.model(input_ids=tokens, use_cache=False).last_hidden_state
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        results.append((hidden, list(torch.autograd.grad((hidden * weights).mean(), trained))))
    (exact, exact_gradients), (widened, widened_gradients), (hidden, gradients) = results
    assert not torch.equal(hidden, widened)
    # Two roundings to 3 bits where widening has one: at most twice its error.
    assert relative_error(hidden, exact) < 2 * relative_error(widened, exact)
    for gradient, its, truth in zip(gradients, widened_gradients, exact_gradients, strict=True):
        assert relative_error(gradient, truth) < 2.5 * relative_error(its, truth)
