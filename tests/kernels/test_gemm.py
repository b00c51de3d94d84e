"""The mainloop against float64: types, odd sizes, layouts, low-rank products, both ways to memory."""

import pytest
import torch
from kernel_errors import assert_close

from tiltyard_kernels.epilogue import Value, epilogue, store, tile
from tiltyard_kernels.gemm import Config, LowRank, gemm, matmul

# The interpreter computes a bfloat16 product wrong without saying so: on the GPU only.
DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
SHAPES = [(128, 256, 128), (199, 760, 72), (760, 199, 40), (1, 64, 64), (33, 8, 5)]


def operand(rows: int, columns: int, *, dtype: torch.dtype, device: torch.device, transposed: bool) -> torch.Tensor:
    if transposed:
        return torch.randn(columns, rows, device=device).to(dtype).t()
    return torch.randn(rows, columns, device=device).to(dtype)


# Every shape as a forward has it, and the ways to lie in memory on an odd one and on one without descriptors.
CASES = [("nt", shape) for shape in SHAPES]
CASES += [(layout, shape) for layout in ("nn", "tn", "tt") for shape in ((99, 136, 72), (33, 8, 5))]


@pytest.mark.parametrize(("layout", "shape"), CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_product(shape: tuple[int, int, int], layout: str, dtype: torch.dtype, device: torch.device) -> None:
    m, n, k = shape
    a = operand(m, k, dtype=dtype, device=device, transposed=layout[0] == "t")
    b = operand(k, n, dtype=dtype, device=device, transposed=layout[1] == "t")
    assert_close(matmul(a, b), a.double() @ b.double(), peer=a @ b)


@pytest.mark.parametrize("rank", [1, 8, 16, 72, 256])
@pytest.mark.parametrize("dtype", DTYPES)
def test_low_rank_product_joins_the_accumulator(rank: int, dtype: torch.dtype, device: torch.device) -> None:
    a, w = torch.randn(70, 40, device=device).to(dtype), torch.randn(130, 40, device=device).to(dtype)
    p, q = torch.randn(70, rank, device=device).to(dtype), torch.randn(130, rank, device=device).to(dtype)
    truth = a.double() @ w.double().t() + p.double() @ q.double().t()
    assert_close(matmul(a, w.t(), low_rank=LowRank(p, q.t())), truth)
    assert_close(matmul(a, w.t(), low_rank=LowRank(p, q.t().contiguous())), truth)


def test_non_contiguous_operands(device: torch.device) -> None:
    wide = torch.randn(64, 96, device=device)
    a, b = wide[:, 3:67:2], torch.randn(96, 64, device=device)[::3, :]
    assert_close(matmul(a, b), a.double() @ b.double())
    rows = wide[:, 5:37]  # rows contiguous, but not aligned: no descriptor
    assert_close(matmul(rows, b), rows.double() @ b.double())


@pytest.mark.parametrize("shape", [(0, 8, 8), (8, 0, 8), (8, 8, 0)])
def test_empty_operands(shape: tuple[int, int, int], device: torch.device) -> None:
    m, n, k = shape
    out = matmul(torch.ones(m, k, device=device), torch.ones(k, n, device=device))
    assert out.shape == (m, n)
    assert torch.equal(out, torch.zeros_like(out))


@pytest.mark.parametrize("subtiles", [1, 2, 4])
@pytest.mark.parametrize("group", [1, 3])
def test_configurations_agree(subtiles: int, group: int, device: torch.device) -> None:
    a, b = torch.randn(150, 64, device=device).half(), torch.randn(64, 200, device=device).half()
    config = Config(32, 64, 32, stages=2, warps=4, group=group, subtiles=subtiles, flatten=False)
    assert_close(matmul(a, b, config=config), a.double() @ b.double())


def test_output_type(device: torch.device) -> None:
    a, b = torch.randn(40, 64, device=device).half(), torch.randn(64, 48, device=device).half()
    out = matmul(a, b, out_dtype=torch.float32)
    assert out.dtype == torch.float32
    assert_close(out, a.double() @ b.double())


@epilogue(loads={"before": tile()}, stores={"out": store()})
def accumulate(acc: Value, before: Value) -> dict[str, Value]:
    return {"out": acc + before}


def test_accumulates_into_an_existing_tensor(device: torch.device) -> None:
    a, b = torch.randn(70, 32, device=device), torch.randn(32, 90, device=device)
    total = torch.randn(70, 96, device=device)[:, :90]
    truth = total.double() + a.double() @ b.double()
    results = gemm(a, b, accumulate, before=total, into={"out": total})
    assert results["out"].data_ptr() == total.data_ptr()
    assert_close(total, truth)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 3), r"a \(2, 3\) and b \(2, 3\) do not multiply"),
        (torch.ones(2, 3), torch.ones(3, 2).half(), "both must be the same one of"),
        (torch.ones(2, 3, dtype=torch.int32), torch.ones(3, 2, dtype=torch.int32), "both must be the same one of"),
    ],
)
def test_bad_operands_are_named(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matmul(a, b)


def test_bad_low_rank_is_named() -> None:
    a, b = torch.ones(4, 3), torch.ones(3, 5)
    with pytest.raises(ValueError, match=r"low_rank: p \(4, 2\) and q \(3, 5\) must be \(4, r\) and \(r, 5\)"):
        matmul(a, b, low_rank=LowRank(torch.ones(4, 2), torch.ones(3, 5)))


def test_bad_configuration_is_named() -> None:
    with pytest.raises(ValueError, match="block_k is 48; it must be a power of two"):
        Config(block_k=48)


def test_operator_is_whole_under_torch_compile(device: torch.device) -> None:
    a, b = torch.randn(24, 32, device=device), torch.randn(32, 40, device=device)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(matmul(x, b)) * 2

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(a), layer(a))
