"""Quantisers and their inverses, in plain PyTorch: the definition of each format, and what kernels are held to.

A weight is (N, K). Sources: int4 group-wise and NF4 with double quantisation after QLoRA (Dettmers et al., arXiv
2305.14314); MXFP8 and MXFP4 after the OCP Microscaling Formats specification v1.0.
"""

from __future__ import annotations

import torch

from tiltyard_kernels.gemm.packed import PackedWeight

FP8 = torch.float8_e4m3fn
MX_GROUP = 32
ABSMAX_BLOCK = 256
# The quantiles of a normal distribution that NF4 stores, QLoRA's appendix E.
NF4_CODE = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
# E2M1: sign, two bits of exponent, one of mantissa.
FP4_CODE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """(N, K) of 0…15 → (N, K / 2) uint8; column 2j in the low half of byte j."""
    codes = codes.to(torch.uint8)
    return codes[:, 0::2] | (codes[:, 1::2] << 4)


def unpack_nibbles(packed: torch.Tensor) -> torch.Tensor:
    """The inverse of `pack_nibbles`."""
    return torch.stack((packed & 15, packed >> 4), dim=2).flatten(1)


def grouped(x: torch.Tensor, group: int) -> torch.Tensor:
    """(N, K) → (N, K / group, group)."""
    return x.reshape(x.shape[0], x.shape[1] // group, group)


def check_groups(weight: torch.Tensor, group: int, name: str) -> None:
    """Raise ValueError unless `weight` is a matrix whose rows are whole groups."""
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(
            f"{name} quantises matrices of floating-point numbers, not {tuple(weight.shape)} {weight.dtype}"
        )
    if group < 2 or group % 2 or weight.shape[1] % group:
        raise ValueError(f"{name}: groups of {group} do not divide the {weight.shape[1]} columns of the weight evenly")


def int4(weight: torch.Tensor, group: int, *, symmetric: bool) -> dict[str, torch.Tensor]:
    """Codes 0…15 and each group's scale and zero: value = (code − zero) · scale. Symmetric: zero is 8 and not kept."""
    check_groups(weight, group, "int4")
    groups = grouped(weight.float(), group)
    if symmetric:
        scale = (groups.abs().amax(2) / 7.5).clamp_min(1e-12)
        zero = torch.full_like(scale, 8.0)
    else:
        low, high = groups.amin(2).clamp_max(0), groups.amax(2).clamp_min(0)
        scale = ((high - low) / 15).clamp_min(1e-12)
        zero = -low / scale
    scale = scale.to(weight.dtype)
    kept = zero.to(weight.dtype)
    codes = (groups / scale.float()[:, :, None] + kept.float()[:, :, None]).round().clamp(0, 15).flatten(1)
    made = {"values": pack_nibbles(codes), "scale": scale}
    return made if symmetric else made | {"zero": kept}


def int8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """int8 with one scale a row."""
    check_groups(weight, 2, "int8")
    scale = (weight.float().abs().amax(1) / 127).clamp_min(1e-12)
    values = (weight.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return {"values": values, "scale": scale}


def fp8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """e4m3 with one scale a row."""
    check_groups(weight, 2, "fp8")
    scale = (weight.float().abs().amax(1) / torch.finfo(FP8).max).clamp_min(1e-12)
    return {"values": (weight.float() / scale[:, None]).to(FP8), "scale": scale}


def nearest(values: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """For each value the index of the nearest entry of `code`, in any order."""
    ordered, order = code.sort()
    middles = (ordered[1:] + ordered[:-1]) / 2
    return order[torch.bucketize(values, middles)]


def nf4(weight: torch.Tensor, group: int, *, double: bool) -> tuple[dict[str, torch.Tensor], float]:
    """NF4 codes and each group's largest magnitude; with `double` that is quantised too, less its mean, which is the
    second value returned."""
    check_groups(weight, group, "nf4")
    code = torch.tensor(NF4_CODE, device=weight.device)
    groups = grouped(weight.float(), group)
    absmax = groups.abs().amax(2)
    codes = nearest(groups / absmax.clamp_min(1e-12)[:, :, None], code).flatten(1)
    made = {"values": pack_nibbles(codes), "code": code}
    if not double:
        return made | {"scale": absmax}, 0.0
    has_numbers = absmax.numel() and not absmax.is_meta
    offset = float(absmax.mean()) if has_numbers else 0.0
    flat = torch.nn.functional.pad((absmax - offset).flatten(), (0, -absmax.numel() % ABSMAX_BLOCK))
    blocks = flat.view(-1, ABSMAX_BLOCK)
    second = blocks.abs().amax(1).clamp_min(1e-12)
    code2 = torch.linspace(-1, 1, 256, device=weight.device)
    coded = ((blocks / second[:, None] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    scale = coded.flatten()[: absmax.numel()].reshape(absmax.shape)
    return made | {"scale": scale, "second": second, "code2": code2}, offset


def _exponents(groups: torch.Tensor, largest_exponent: int) -> torch.Tensor:
    """Each group's shared exponent plus 127: ⌊log2 of the largest magnitude⌋ less that of the element format."""
    amax = groups.abs().amax(2)
    exponent = torch.where(amax > 0, torch.log2(amax.clamp_min(2.0**-126)).floor() - largest_exponent, -127.0)
    return (exponent.clamp(-127, 127) + 127).to(torch.uint8)


def mxfp8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """e4m3 elements, saturated, and a power of two for each 32 columns."""
    check_groups(weight, MX_GROUP, "mxfp8")
    groups = grouped(weight.float(), MX_GROUP)
    scale = _exponents(groups, 8)
    scaled = groups / torch.exp2(scale.float() - 127)[:, :, None]
    limit = torch.finfo(FP8).max
    return {"values": scaled.clamp(-limit, limit).to(FP8).flatten(1), "scale": scale}


def mxfp4(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """E2M1 elements, saturated, and a power of two for each 32 columns.

    To the nearest, ties to the even code, as the OCP specification has it.
    """
    check_groups(weight, MX_GROUP, "mxfp4")
    groups = grouped(weight.float(), MX_GROUP)
    scale = _exponents(groups, 2)
    scaled = (groups / torch.exp2(scale.float() - 127)[:, :, None]).flatten(1)
    code = torch.tensor(FP4_CODE, device=weight.device)
    middles = (code[1:8] + code[:7]) / 2
    below = torch.bucketize(scaled.abs(), middles)  # a tie goes down here, and up there
    above = torch.bucketize(scaled.abs(), middles, right=True)
    codes = torch.where(below % 2 == 0, below, above) + 8 * (scaled < 0)
    return {"values": pack_nibbles(codes), "scale": scale, "code": code}


def group_scales(packed: PackedWeight) -> torch.Tensor:
    """(N, K / group) float32."""
    if packed.kind == "e8m0":
        return torch.exp2(packed.scale.float() - 127)
    if packed.kind == "plain":
        return packed.scale.float()
    assert packed.code2 is not None  # noqa: S101  # of this kind
    assert packed.second is not None  # noqa: S101
    flat = packed.code2[packed.scale.flatten().long()]
    return (flat * packed.second.repeat_interleave(ABSMAX_BLOCK)[: flat.numel()] + packed.offset).view(
        packed.scale.shape
    )


def widened(packed: PackedWeight) -> torch.Tensor:
    """The weight (N, K) in float32: the reference of every kernel that reads one."""
    if packed.format == "wide":
        return packed.values.float() * packed.scale.float()[:, None]
    scales = group_scales(packed)[:, :, None]
    if packed.format == "wide_grouped":
        return (grouped(packed.values.float(), packed.group) * scales).flatten(1)
    codes = unpack_nibbles(packed.values)
    if packed.format == "lut4":
        assert packed.code is not None  # noqa: S101  # of this format
        return (grouped(packed.code[codes.long()], packed.group) * scales).flatten(1)
    zero = 8.0 if packed.zero is None else packed.zero.float()[:, :, None]
    return ((grouped(codes.float(), packed.group) - zero) * scales).flatten(1)
