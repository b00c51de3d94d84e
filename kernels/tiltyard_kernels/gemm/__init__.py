"""C = A · B with an epilogue program: one mainloop for every GEMM of a transformer block."""

from tiltyard_kernels.gemm.config import Config, Skinny
from tiltyard_kernels.gemm.ops import LowRank, Scales, gemm, matmul

__all__ = ["Config", "LowRank", "Scales", "Skinny", "gemm", "matmul"]
