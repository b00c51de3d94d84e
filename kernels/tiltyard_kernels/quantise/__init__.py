"""Quantised weights: formats, the tensor subclass, linears over it, and checkpoints."""

from tiltyard_kernels.quantise.interop import (
    from_bitsandbytes,
    int4_from_torchao,
    nf4_from_torchao,
    read_bitsandbytes,
)
from tiltyard_kernels.quantise.linear import quantised_linear
from tiltyard_kernels.quantise.model import Fp8, Int4, Int8, Mxfp4, Mxfp8, Nf4, quantize_
from tiltyard_kernels.quantise.state import flatten_state, unflatten_state
from tiltyard_kernels.quantise.tensor import (
    DynamicFp8Tensor,
    Fp8Tensor,
    Int4Tensor,
    Int8Tensor,
    Mxfp4Tensor,
    Mxfp8Tensor,
    Nf4Tensor,
    QuantisedTensor,
)

__all__ = [
    "DynamicFp8Tensor",
    "Fp8",
    "Fp8Tensor",
    "Int4",
    "Int4Tensor",
    "Int8",
    "Int8Tensor",
    "Mxfp4",
    "Mxfp4Tensor",
    "Mxfp8",
    "Mxfp8Tensor",
    "Nf4",
    "Nf4Tensor",
    "QuantisedTensor",
    "flatten_state",
    "from_bitsandbytes",
    "int4_from_torchao",
    "nf4_from_torchao",
    "quantised_linear",
    "quantize_",
    "read_bitsandbytes",
    "unflatten_state",
]
