"""Products of few rows and of few tiles: K in parts, joined; and launches prepared once."""

import types
from typing import Any

import pytest
import torch
from kernel_errors import assert_close

from tiltyard_kernels.blocks import programs
from tiltyard_kernels.epilogue import evaluate
from tiltyard_kernels.gemm import Config, LowRank, Skinny, gemm, matmul
from tiltyard_kernels.gemm.config import choose, choose_skinny
from tiltyard_kernels.gemm.operands import as_matrix
from tiltyard_kernels.gemm.ops import _store
from tiltyard_kernels.gemm.plan import PLANS_MAX, Plans, Step, View

DTYPES = [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("is_transposed", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows(rows: int, is_transposed: bool, dtype: torch.dtype, device: torch.device) -> None:
    x, w = torch.randn(rows, 104, device=device).to(dtype), torch.randn(99, 104, device=device).to(dtype)
    b = w.t() if is_transposed else w.t().contiguous()
    p, q = torch.randn(rows, 5, device=device).to(dtype), torch.randn(99, 5, device=device).to(dtype).t()
    assert_close(matmul(x, b, low_rank=LowRank(p, q)), x.double() @ b.double() + p.double() @ q.double())


@pytest.mark.parametrize(
    "config", [Config(32, 64, 32, stages=1, warps=4, flatten=False, split=3), Skinny(split=1), Skinny(split=3)]
)
def test_programs_run_after_the_join(config: Config | Skinny, device: torch.device) -> None:
    x, w = torch.randn(9, 328, device=device).half(), torch.randn(136, 328, device=device).half() / 18
    residual = torch.randn(9, 136, device=device).half()
    made = gemm(x, w.t(), programs.residual_norm, config=config, residual=residual, eps=1e-5)
    operands = {"residual": residual.double(), "eps": 1e-5}
    truth = evaluate(programs.residual_norm, x.double() @ w.double().t(), operands)
    for name, value in made.items():
        assert_close(value, truth[name].to(value.dtype).double())
    z = gemm(x, w.t(), programs.swiglu, config=config, rstd=torch.ones(9, device=device))
    truth = evaluate(
        programs.swiglu, x.double() @ w.double().t(), {"rstd": torch.ones(9, dtype=torch.float64, device=device)}
    )
    for name, value in z.items():
        assert_close(value, truth[name])


def test_a_split_product_is_the_same_in_every_run(device: torch.device) -> None:
    x, w = torch.randn(40, 512, device=device), torch.randn(64, 512, device=device)
    config = Config(32, 64, 32, stages=1, warps=4, flatten=False, split=4)
    assert torch.equal(matmul(x, w.t(), config=config), matmul(x, w.t(), config=config))


def test_a_prepared_launch_reads_what_it_is_given_now(device: torch.device) -> None:
    w = torch.randn(64, 48, device=device)
    wide = torch.randn(33, 52, device=device)
    # The same shape, with other values, another address, other strides, and another alignment.
    for x in (torch.randn(33, 48, device=device), torch.randn(33, 48, device=device), wide[:, :48], wide[:, 3:51]):
        assert_close(matmul(x, w.t()), x.double() @ w.double().t())


def test_later_launches_pass_descriptors_that_this_triton_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's own launcher takes apart what the compiled kernel is handed; only the driver below it needs a GPU."""
    nvidia = pytest.importorskip("triton.backends.nvidia.driver")
    driver = pytest.importorskip("triton.runtime").driver
    filled: list[tuple[Any, ...]] = []

    def fill(*arguments: Any) -> str:
        filled.append(arguments)
        return "map"

    utils = types.SimpleNamespace(fill_tma_descriptor=fill, fill_tma_descriptor_tiled=fill)  # Triton 3.6; from 3.7 on
    monkeypatch.setattr(driver, "_active", types.SimpleNamespace(utils=utils))
    handed: list[Any] = []

    class Kernel:
        def __getitem__(self, _grid: Any) -> Any:
            def first(descriptor: Any, **_options: Any) -> Any:
                handed.append(descriptor)
                return {(1, 1, 1): handed.append}

            return first

    step = Step(Kernel(), (1,), [None], [(0, "x", View([8, 16], [16, 1], [8, 16]))], warps=4, stages=1)
    tensors = [torch.ones(8, 16), torch.zeros(8, 16)]
    for tensor in tensors:
        step.launch({"x": tensor})
    swizzled = {"swizzle": 1, "elem_size": 4, "elem_type": 7, "block_size": [8, 16], "fp4_padded": False}
    for metadata in (None, swizzled):
        first, later = (nvidia.make_tensordesc_arg(descriptor, metadata) for descriptor in handed)
        assert first[1:] == later[1:]
    assert all(descriptor.base is tensor for descriptor, tensor in zip(handed, tensors, strict=True))
    assert [arguments[0] for arguments in filled] == [tensor.data_ptr() for tensor in tensors]
    assert filled[0][1:] == filled[1][1:]


def test_bad_operands_are_named_after_good_ones(device: torch.device) -> None:
    a, b = torch.ones(4, 8, device=device), torch.ones(8, 4, device=device)
    matmul(a, b)
    with pytest.raises(ValueError, match="do not multiply"):
        matmul(a, b[:7])
    with pytest.raises(ValueError, match="needs the operand 'residual'"):
        gemm(a, b, programs.residual_norm)


def test_a_gradient_goes_through_the_operator(device: torch.device) -> None:
    a = torch.ones(4, 8, device=device, requires_grad=True)
    assert matmul(a, torch.ones(8, 4, device=device)).grad_fn is not None


@pytest.mark.parametrize("which", [0, 1])
def test_a_gradient_of_a_joined_pair_goes_through_the_operator(which: int, device: torch.device) -> None:
    pair = [torch.ones(4, 2, device=device), torch.ones(2, 4, device=device)]
    pair[which].requires_grad_()
    a, b = torch.ones(4, 8, device=device), torch.ones(8, 4, device=device)
    assert matmul(a, b, low_rank=LowRank(*pair)).grad_fn is not None
    with torch.no_grad():
        assert not matmul(a, b, low_rank=LowRank(*pair)).requires_grad


def test_a_gradient_that_nothing_would_carry_is_refused(device: torch.device) -> None:
    a, b = torch.ones(4, 8, device=device), torch.ones(8, 4, device=device)
    out = torch.ones(4, 4, device=device, requires_grad=True)
    for arguments in ({"into": {"out": out}}, {"config": Skinny(), "low_rank": LowRank(out, out)}):
        with pytest.raises(ValueError, match="no gradient goes through a product with `into` or `config`"):
            gemm(a, b, _store, **arguments)
    with torch.no_grad():
        made = gemm(a, b, _store, into={"out": out})
    assert made["out"] is out
    assert torch.equal(out, torch.full_like(out, 8))


def test_plans_do_not_pile_up() -> None:
    plans = Plans()
    for key in range(PLANS_MAX + 1):
        plans.put(key, None)  # type: ignore[arg-type]
    assert plans.get(0) is None
    assert len(plans._plans) == 1


def test_choices() -> None:
    few = choose(128, 128, 16384, layout="nt", itemsize=2, gpu="", capability=(9, 0))
    assert few.split == 16
    assert choose(8192, 8192, 8192, layout="nt", itemsize=2, gpu="", capability=(9, 0)).split == 1
    assert choose_skinny(1, 4096, 14336, bits=4, group=128, programs=132).block_k == 128
    assert choose_skinny(256, 4096, 14336, bits=4, group=32, programs=132).block_k == 32
    assert choose_skinny(16, 64, 14336, bits=16, group=0, programs=132).split == 16


def test_layout_of_a_copied_operand_is_that_of_the_copy(device: torch.device) -> None:
    strided = torch.empty(8, 12, device=device)[:, ::2]
    assert as_matrix(strided, described=True).stride == 6
