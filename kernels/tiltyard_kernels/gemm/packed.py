"""A quantised weight as kernels read it: plain tensors and what they mean, without the tensor subclass around them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

Format = Literal["wide", "wide_grouped", "int4", "lut4"]
ScaleKind = Literal["plain", "e8m0", "double", "dynamic"]


class PackedWeight(NamedTuple):
    """A weight (N, K), K even, of quantised elements.

    values   wide, wide_grouped: (N, K) int8 or fp8. int4, lut4: (N, K / 2) uint8, column 2j in the low half of byte j
    scale    wide: (N,) floats; of kind dynamic where many rows of activations are to be quantised too. Else
             (N, K / group): floats (plain), exponents of two plus 127 as uint8 (e8m0), or codes into code2 as uint8
             (double)
    zero     int4: (N, K / group), what is subtracted before scaling; None stands for 8
    code     lut4: (16,) float32, what each code means
    second   double: (⌈N · K / group / 256⌉,) float32: a group's scale is code2[scale] · second[index // 256] + offset
    """

    values: torch.Tensor
    scale: torch.Tensor
    shape: tuple[int, int]
    format: Format
    kind: ScaleKind = "plain"
    group: int = 0
    zero: torch.Tensor | None = None
    code: torch.Tensor | None = None
    second: torch.Tensor | None = None
    code2: torch.Tensor | None = None
    offset: float = 0.0

    @property
    def is_four_bit(self) -> bool:
        return self.format in ("int4", "lut4")

    @property
    def is_dynamic(self) -> bool:
        """Whether many rows of activations are quantised as well, so that fp8 multiplies fp8."""
        return self.kind == "dynamic"

    @property
    def fits_kernels(self) -> bool:
        """Whether kernels read or widen it: whole groups that are powers of two, or one scale a row.

        A block of K may not straddle groups and tl.dot takes at least 16 of K: a four-bit weight's even and odd
        columns are multiplied apart, so that its groups need twice as many.
        """
        _, k = self.shape
        if self.is_four_bit and k % 2:
            return False
        smallest = 32 if self.is_four_bit else 16
        return self.format == "wide" or (
            self.group >= smallest and self.group & (self.group - 1) == 0 and k % self.group == 0
        )

    @property
    def fits_the_loop(self) -> bool:
        """Whether the kernels of few rows read it as it is. A look-up for each code took them five times as long as
        widening the whole weight first, so looked-up codes are widened."""
        return self.fits_kernels and self.format != "lut4"

    def tensors(self) -> dict[str, torch.Tensor]:
        named = {"values": self.values, "scale": self.scale, "zero": self.zero, "code": self.code}
        named |= {"second": self.second, "code2": self.code2}
        return {name: tensor for name, tensor in named.items() if tensor is not None}
