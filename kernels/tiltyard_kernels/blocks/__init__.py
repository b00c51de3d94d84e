"""A transformer block's linears as GEMM-epilogue programs, forward and backward."""

from tiltyard_kernels.blocks.attention import output_projection, qkv_projection, qkv_projection_reference, rotate
from tiltyard_kernels.blocks.heads import HeadNorm
from tiltyard_kernels.blocks.layouts import fold_gain, interleave_gate_up, pair_rotary, split_gate_up, unpair_rotary
from tiltyard_kernels.blocks.mlp import mlp, mlp_reference, rstd_of

__all__ = [
    "HeadNorm",
    "fold_gain",
    "interleave_gate_up",
    "mlp",
    "mlp_reference",
    "output_projection",
    "pair_rotary",
    "qkv_projection",
    "qkv_projection_reference",
    "rotate",
    "rstd_of",
    "split_gate_up",
    "unpair_rotary",
]
