"""Quantised weights: kernels against the formats' definitions, and the subclass wherever a weight goes."""

import copy
import io
import itertools
import pickle
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from kernel_errors import assert_close, relative_error
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tiltyard_kernels import quantise
from tiltyard_kernels.gemm import LowRank
from tiltyard_kernels.gemm.packed import Format, PackedWeight
from tiltyard_kernels.quantise import QuantisedTensor, formats, linear, quantize_
from tiltyard_kernels.quantise.linear import packed_matmul
from tiltyard_kernels.quantise.model import QuantiseConfig

CONFIGS: dict[str, QuantiseConfig] = {
    "int4": quantise.Int4(32),
    "int4 asymmetric": quantise.Int4(32, symmetric=False),
    "int8": quantise.Int8(),
    "fp8": quantise.Fp8(),
    "nf4": quantise.Nf4(32, double=False),
    "nf4 double": quantise.Nf4(32),
    "mxfp8": quantise.Mxfp8(),
    "mxfp4": quantise.Mxfp4(),
}
# ‖dequantised − weight‖ / ‖weight‖ of normal weights; what the formats cost, with a little room.
LOSSES = {"int4": 0.11, "int4 asymmetric": 0.09, "int8": 0.008, "fp8": 0.03, "nf4": 0.09, "nf4 double": 0.095}
LOSSES |= {"mxfp8": 0.03, "mxfp4": 0.14}


def quantised(name: str, device: torch.device, dtype: torch.dtype = torch.float16) -> QuantisedTensor:
    return CONFIGS[name].quantise(torch.randn(70, 96, device=device).to(dtype))


@pytest.mark.parametrize("name", CONFIGS)
def test_formats_keep_what_they_can(name: str) -> None:
    weight = torch.randn(64, 256)
    assert relative_error(CONFIGS[name].quantise(weight).dequantise(), weight) < LOSSES[name]
    zeros = CONFIGS[name].quantise(torch.zeros(2, 64)).dequantise()
    assert torch.equal(zeros, torch.zeros(2, 64))


@pytest.mark.parametrize("name", CONFIGS)
def test_widened_as_defined(name: str, device: torch.device) -> None:
    weight = quantised(name, device)
    assert_close(weight.dequantise(), formats.widened(weight.packed()).double())


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("name", CONFIGS)
def test_products_of_few_rows(name: str, rows: int, device: torch.device) -> None:
    weight = quantised(name, device)
    x = torch.randn(rows, 96, device=device).half()
    truth = x.double() @ formats.widened(weight.packed()).double().t()
    assert_close(nn.functional.linear(x, weight), truth, peer=x @ weight.dequantise().t())


@pytest.mark.parametrize("rows", [1, 5])
def test_adapters_join_the_product(rows: int, device: torch.device) -> None:
    weight, x = quantised("int4 asymmetric", device), torch.randn(rows, 96, device=device).half()
    p, q = torch.randn(rows, 8, device=device).half(), torch.randn(70, 8, device=device).half().t()
    truth = x.double() @ formats.widened(weight.packed()).double().t() + p.double() @ q.double()
    assert_close(packed_matmul(x, weight.packed(), LowRank(p, q)), truth)


@pytest.mark.parametrize("columns", [64, 95, 128])
@pytest.mark.parametrize("rows", [2, 600])
def test_inputs_of_another_width_are_refused(rows: int, columns: int, device: torch.device) -> None:
    weight = quantised("int4", device)
    x = torch.ones(rows, columns, device=device).half()
    for multiply in (lambda: nn.functional.linear(x, weight), lambda: packed_matmul(x, weight.packed())):
        with pytest.raises(ValueError, match=r"does not fit the quantised weight \(70, 96\): it must have 96 features"):
            multiply()


def test_what_does_not_fit_a_quantised_product_is_named(device: torch.device) -> None:
    packed = quantised("int4", device).packed()
    x = torch.ones(5, 96, device=device).half()
    p, q = torch.ones(5, 8, device=device).half(), torch.ones(8, 70, device=device).half()
    with pytest.raises(ValueError, match="x is on meta and the quantised weight on"):
        packed_matmul(x.to("meta"), packed)
    with pytest.raises(ValueError, match=r"x is torch.int64"):
        packed_matmul(x.long(), packed)
    with pytest.raises(ValueError, match=r"must be \(5, r\) and \(r, 70\)"):
        packed_matmul(x, packed, LowRank(p, q[:, :69]))
    with pytest.raises(ValueError, match=r"must be \(5, r\) and \(r, 70\)"):
        packed_matmul(x, packed, LowRank(p[:4], q))
    with pytest.raises(ValueError, match=r"q is torch\.float32, but a is torch\.float16"):
        packed_matmul(x, packed, LowRank(p, q.float()))
    with pytest.raises(ValueError, match="q on meta, but a on"):
        packed_matmul(x, packed, LowRank(p, q.to("meta")))


@pytest.mark.parametrize("which", [0, 1])
def test_a_joined_pair_alone_may_be_differentiated(which: int, device: torch.device) -> None:
    """Through the operator, which says that it has no derivative; not silently without one."""
    pair = [torch.ones(5, 8, device=device).half(), torch.ones(8, 70, device=device).half()]
    pair[which].requires_grad_()
    y = packed_matmul(torch.ones(5, 96, device=device).half(), quantised("int4", device).packed(), LowRank(*pair))
    assert y.requires_grad


def test_gradient_of_the_input(device: torch.device) -> None:
    weight = quantised("nf4 double", device)
    x = torch.randn(2, 9, 96, device=device).half().requires_grad_()
    bias = torch.randn(70, device=device).half().requires_grad_()
    y = nn.functional.linear(x, weight, bias)
    dy = torch.randn_like(y)
    dx, dbias = torch.autograd.grad(y, (x, bias), dy)
    assert_close(dx.flatten(0, 1), dy.flatten(0, 1).double() @ weight.dequantise().double())
    assert_close(dbias, dy.double().sum((0, 1)))


def test_no_rows(device: torch.device) -> None:
    assert nn.functional.linear(torch.ones(0, 96, device=device).half(), quantised("int4", device)).shape == (0, 70)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    assert isinstance(a, QuantisedTensor)
    assert isinstance(b, QuantisedTensor)
    alike = a.parts.keys() == b.parts.keys() and (a.shape, a.dtype, a.offset) == (b.shape, b.dtype, b.offset)
    return alike and all(torch.equal(part.float(), b.parts[name].float()) for name, part in a.parts.items())


@pytest.mark.parametrize("name", CONFIGS)
def test_copies_and_pickles(name: str, device: torch.device) -> None:
    weight = quantised(name, device)
    assert same(weight.clone(), weight)
    assert same(weight.detach().to(device), weight)
    assert weight.to(torch.bfloat16).dtype == torch.bfloat16
    assert same(pickle.loads(pickle.dumps(weight)), weight)  # noqa: S301  # our own bytes
    file = io.BytesIO()
    torch.save({"w": weight}, file)
    file.seek(0)
    assert same(torch.load(file, weights_only=True)["w"], weight)


@pytest.mark.parametrize("name", CONFIGS)
def test_slices(name: str, device: torch.device) -> None:
    weight = quantised(name, device)
    whole = formats.widened(weight.packed())
    torch.testing.assert_close(formats.widened(weight[10:31].packed()), whole[10:31])
    torch.testing.assert_close(formats.widened(weight[:, 32:96].packed()), whole[:, 32:96])


def test_wrong_uses_say_what_to_do(device: torch.device) -> None:
    weight = quantised("int4", device)
    with pytest.raises(ValueError, match="no whole groups of 32"):
        weight[:, 3:10]
    with pytest.raises(NotImplementedError, match="widen it first with dequantise"):
        weight + 1  # type: ignore[operator]
    with pytest.raises(ValueError, match="do not divide the 96 columns"):
        quantise.Int4(64).quantise(torch.ones(2, 96))
    with pytest.raises(ValueError, match="matrices of floating-point numbers"):
        quantise.Int8().quantise(torch.ones(3))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 64)
        self.inner = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))
        self.head = nn.Linear(64, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.inner(self.embed(x)))
        return y


def test_quantises_a_model_and_keeps_it_in_files(tmp_path: Path) -> None:
    model, again = Small(), Small()
    assert quantize_(model, quantise.Nf4(32)) == ["inner.0", "inner.2"]  # a tied head stays
    assert not isinstance(model.head.weight, QuantisedTensor)
    tensors, metadata = quantise.flatten_state(model.state_dict())
    save_file({k: v.clone() for k, v in tensors.items()}, tmp_path / "model.safetensors", metadata)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        state = quantise.unflatten_state({key: file.get_tensor(key) for key in file.keys()}, file.metadata())  # noqa: SIM118
    again.load_state_dict(state, assign=True)
    x = torch.arange(10)
    assert torch.equal(model(x), again(x))
    quantize_(third := Small(), quantise.Nf4(32))
    third.load_state_dict(model.state_dict())
    assert torch.equal(model(x), third(x))
    assert torch.equal(model(x), copy.deepcopy(model)(x))


def test_a_filter_chooses() -> None:
    model = Small()
    assert quantize_(model, quantise.Int8(), lambda _module, name: name == "inner.2") == ["inner.2"]
    assert "Int8Tensor((64, 96)" in repr(model.inner[2].weight)


def test_a_false_description_is_refused() -> None:
    quantize_(model := Small(), quantise.Int4(32))
    tensors, metadata = quantise.flatten_state(model.state_dict())
    tensors["inner.0.weight.scale"] = tensors["inner.0.weight.scale"][:3]
    with pytest.raises(ValueError, match=r"'inner.0.weight': its scale are \(3, 2\) and must be \(96, 2\)"):
        quantise.unflatten_state(tensors, metadata)
    with pytest.raises(ValueError, match="not described rightly"):
        quantise.unflatten_state({}, metadata)


@pytest.mark.parametrize("name", ["int4", "nf4 double", "int8"])
def test_whole_under_torch_compile(name: str) -> None:
    layer = nn.Linear(96, 70).requires_grad_(False)
    layer.weight = nn.Parameter(CONFIGS[name].quantise(layer.weight.detach()), requires_grad=False)
    x = torch.randn(3, 96, requires_grad=True)
    compiled = torch.compile(lambda x: layer(x).square().sum(), fullgraph=True, backend="aot_eager")
    (got,) = torch.autograd.grad(compiled(x), x)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(got, expected)


def test_packed_weights_that_kernels_cannot_read() -> None:
    odd = PackedWeight(torch.empty(2, 24), torch.empty(2, 1), (2, 48), "int4", group=48)
    assert not odd.fits_kernels


@pytest.mark.parametrize(("name", "smallest"), [("int4", 32), ("lut4", 32), ("wide_grouped", 16)])
def test_groups_give_each_product_sixteen_of_k(name: Format, smallest: int) -> None:
    for group in (8, 16, 32, 64):
        packed = PackedWeight(torch.empty(2, 64), torch.empty(2, 64 // group), (2, 64), name, group=group)
        assert packed.fits_kernels == (group >= smallest)


def test_four_bit_groups_of_sixteen_are_widened(device: torch.device) -> None:
    weight = quantise.Int4(16).quantise(torch.randn(70, 96, device=device).half())
    x = torch.randn(5, 96, device=device).half()
    assert_close(nn.functional.linear(x, weight), x.double() @ formats.widened(weight.packed()).double().t())


@pytest.mark.parametrize(("capability", "is_read"), [((8, 0), False), ((8, 6), False), ((8, 9), True), ((9, 0), True)])
def test_gpus_that_read_fp8(capability: tuple[int, int], is_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(linear, "gpu_of", lambda _device: ("a GPU", capability))
    monkeypatch.setattr(linear, "runs_in_triton", lambda _like: True)
    monkeypatch.setattr(torch, "empty", lambda *_size, **_options: None)  # there may be no such device
    for name in ("fp8", "mxfp8"):
        assert linear._in_triton(quantised(name, torch.device("cpu")).packed(), gpu, torch.float16) == is_read
    assert linear._in_triton(quantised("int8", torch.device("cpu")).packed(), gpu, torch.float16)


def test_mxfp4_rounds_to_nearest_and_ties_to_even() -> None:
    """Against the definition: of E2M1's values the nearest, of two as near the one whose last bit is 0."""
    magnitudes = [Fraction(value) for value in formats.FP4_CODE[:8]]
    ties = torch.tensor([float(low + high) / 2 for low, high in itertools.pairwise(magnitudes)])
    near = torch.cat([ties, torch.nextafter(ties, ties + 1), torch.nextafter(ties, ties - 1)])
    positive = torch.cat([torch.arange(0, 8, 1 / 64), near])
    values = torch.cat([positive, -positive])
    weight = torch.zeros(-(-values.numel() // 31), 32)
    weight[:, 0] = 4.0  # with which a group's exponent is 0
    padded = nn.functional.pad(values, (0, -values.numel() % 31)).view(-1, 31)
    weight[:, 1:] = padded
    made = formats.mxfp4(weight)
    assert (made["scale"] == 127).all()
    found = formats.unpack_nibbles(made["values"])[:, 1:].flatten()[: values.numel()].tolist()
    for value, code in zip(values.tolist(), found, strict=True):
        exact = abs(Fraction(value))
        expected = min(range(8), key=lambda index: (abs(magnitudes[index] - exact), index & 1))
        assert code == expected + 8 * (value < 0), value


def test_reads_bitsandbytes() -> None:
    """Bytes laid out as bitsandbytes documents them: blocks of the flattened weight, first column in the high half."""
    weight = torch.randn(8, 128)
    reference = quantise.Nf4Tensor.quantise(weight, 64)
    codes = formats.unpack_nibbles(reference.values)
    described = (
        b'{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [8, 128], "nested_blocksize": 256, '
    )
    described += f'"nested_dtype": "float32", "nested_offset": {reference.offset}}}'.encode()
    state = {
        "l.weight": (codes[:, 0::2] << 4 | codes[:, 1::2]).reshape(-1, 1),
        "l.weight.absmax": reference.scale.flatten(),
        "l.weight.quant_map": reference.code,
        "l.weight.nested_absmax": reference.second,
        "l.weight.nested_quant_map": reference.code2,
        "l.weight.quant_state.bitsandbytes__nf4": torch.tensor(list(described), dtype=torch.uint8),
        "l.bias": torch.ones(8),
    }
    read = quantise.read_bitsandbytes(state)
    assert read.keys() == {"l.weight", "l.bias"}
    torch.testing.assert_close(formats.widened(read["l.weight"].packed()), formats.widened(reference.packed()))
