"""Weights that bitsandbytes and torchao themselves quantised, where these are installed."""

import pytest
import torch
from kernel_errors import assert_close, relative_error

from tiltyard_kernels import quantise
from tiltyard_kernels.quantise import formats


@pytest.mark.parametrize("is_nested", [True, False])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_bitsandbytes(kind: str, is_nested: bool) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(64, 512)
    data, state = functional.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=is_nested)
    serialised = {"w": data} | {f"w.{key}": part for key, part in state.as_dict(packed=True).items()}
    read = quantise.read_bitsandbytes(serialised)["w"]
    assert read.shape == weight.shape
    assert relative_error(formats.widened(read.packed()), functional.dequantize_4bit(data, state)) < 1e-6


def test_torchao_nf4() -> None:
    nf4tensor = pytest.importorskip("torchao.dtypes.nf4tensor")
    weight = torch.randn(64, 512)
    peer = nf4tensor.NF4Tensor.from_tensor(weight, 64, 256)
    read = quantise.nf4_from_torchao(peer)
    assert relative_error(formats.widened(read.packed()), peer.get_original_weight()) < 1e-6


def test_torchao_int4() -> None:
    """torchao quantises int4 on a GPU only; its tensor is made here of codes, scales and zeros as it documents them."""
    quantization = pytest.importorskip("torchao.quantization")
    codes = torch.randint(-8, 8, (24, 64), dtype=torch.int8)
    scale, zero = torch.rand(2, 24) + 0.1, torch.randn(2, 24)
    packed = (codes[:, 0::2] & 15) | (codes[:, 1::2] << 4)
    peer = quantization.Int4Tensor(packed, scale, zero, [1, 32], torch.Size((24, 64)))
    truth = codes.float() * scale.t().repeat_interleave(32, 1) + zero.t().repeat_interleave(32, 1)
    assert_close(formats.widened(quantise.int4_from_torchao(peer).packed()), truth.double())
