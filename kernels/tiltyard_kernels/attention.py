"""Attention within the documents of a packed sequence, from `cu_seqlens`: causal, GQA, forward and backward.

No mask is built, and lengths that change from batch to batch neither compile anything nor wait for the GPU. Results are
the same in every run. See `device.attention` for how.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from tiltyard_kernels.gemm.execute import runs_in_triton
from tiltyard_kernels.gemm.operands import gpu_of

HEAD_SIZE_MAX = 256


def packed_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor, *, scale: float | None = None
) -> torch.Tensor:
    """softmax(scale · q · kᵀ) · v, causal within each document: (T, H, size), differentiable in q, k, v.

    q (T, H, size); k and v (T, H_kv, size), H a multiple of H_kv; size up to 256; cu_seqlens (D + 1,) integers, rising
    from 0 to T, on the same device, not checked there. The scale, above 0, is 1 / √size unless given.
    """
    _check(q, k, v, cu_seqlens)
    chosen = 1 / math.sqrt(q.shape[2]) if scale is None else scale
    if not chosen > 0:
        raise ValueError(f"scale is {chosen}; it must be above 0")
    o, _lse = torch.ops.tiltyard.packed_attention(q, k, v, cu_seqlens, chosen)
    made: torch.Tensor = o
    return made


def packed_attention_reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """The same in plain PyTorch, document by document, differentiable."""
    group = q.shape[1] // k.shape[1]
    made = []
    bounds = cu_seqlens.tolist()
    for begin, end in pairwise(bounds):
        scores = torch.einsum("thd,shd->hts", q[begin:end], k[begin:end].repeat_interleave(group, 1)) * scale
        seen = torch.ones(end - begin, end - begin, dtype=torch.bool, device=q.device).tril()
        p = scores.masked_fill(~seen, -math.inf).softmax(2)
        made.append(torch.einsum("hts,shd->thd", p, v[begin:end].repeat_interleave(group, 1)))
    return torch.cat(made) if made else torch.zeros_like(q)


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor) -> None:
    if q.dim() != 3 or k.dim() != 3 or k.shape != v.shape or (q.shape[0], q.shape[2]) != (k.shape[0], k.shape[2]):
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} must be (T, H, size), (T, H_kv, size) twice"
        )
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads cannot share {k.shape[1]} key heads evenly")
    if not 1 <= q.shape[2] <= HEAD_SIZE_MAX:
        raise ValueError(f"heads are of size {q.shape[2]}; the largest is {HEAD_SIZE_MAX}")
    if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 1 or cu_seqlens.is_floating_point():
        raise ValueError(f"cu_seqlens is {tuple(cu_seqlens.shape)} of {cu_seqlens.dtype}; it must be (D + 1,) integers")
    if cu_seqlens.device != q.device:
        raise ValueError(f"cu_seqlens is on {cu_seqlens.device}, but q on {q.device}")


class Tile(NamedTuple):
    """What a program of one of the three kernels works on, and how."""

    rows: int
    columns: int
    warps: int
    stages: int


# By the largest head size they hold for: the forward, the keys' and the queries' gradients. On Hopper those up to 128
# were the fastest of ten to twenty on an H200; the others were read off the compiler for no spills.
_TILES = {
    64: (Tile(128, 64, 8, 3), Tile(32, 64, 4, 1), Tile(64, 32, 4, 3)),
    128: (Tile(64, 64, 4, 3), Tile(64, 128, 8, 1), Tile(64, 64, 4, 2)),
    256: (Tile(64, 32, 8, 2), Tile(32, 32, 4, 1), Tile(32, 32, 4, 1)),
}
_TILES_BEFORE_HOPPER = {
    64: (Tile(128, 64, 4, 3), Tile(32, 64, 4, 2), Tile(64, 32, 4, 3)),
    128: (Tile(128, 64, 8, 2), Tile(32, 64, 8, 2), Tile(64, 64, 8, 2)),
    256: _TILES[256],
}
_ON_CPU = Tile(32, 16, 4, 1)


def _tile(size: int, kernel: int, device: torch.device) -> Tile:
    gpu = gpu_of(device)
    if gpu is None:
        return _ON_CPU
    table = _TILES if gpu[1] >= (9, 0) else _TILES_BEFORE_HOPPER
    return next(tiles[kernel] for largest, tiles in table.items() if size <= largest)


def _table(starts: torch.Tensor, tokens: int, block: int) -> torch.Tensor:
    """(tiles, 3) int32, for at most as many tiles as there can be: one a whole block, and one more a document."""
    from tiltyard_kernels.device.attention import tile_table_kernel  # noqa: PLC0415  # only where Triton is there

    documents = starts.numel() - 1
    tiles = max(1, tokens // block + documents)
    table = torch.empty(tiles, 3, dtype=torch.int32, device=starts.device)
    tile_table_kernel[(tiles,)](starts, table, documents, BM=block, num_warps=1)
    return table


def _rows(x: torch.Tensor) -> torch.Tensor:
    """x with the numbers of a head, and the heads of a row, end to end."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


_LIBRARY: Any = torch.library.Library("tiltyard", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("packed_attention(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, float scale) -> (Tensor, Tensor)")
_LIBRARY.define(
    "packed_attention_backward(Tensor do, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, Tensor cu_seqlens, "
    "float scale) -> (Tensor, Tensor, Tensor)"
)


def _forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, heads, size = q.shape
    lse = torch.empty(heads, tokens, dtype=torch.float32, device=q.device)
    if not _in_triton(q):
        return packed_attention_reference(q, k, v, cu_seqlens, scale=scale).contiguous(), lse
    from tiltyard_kernels.device.attention import attention_forward_kernel  # noqa: PLC0415  # only where Triton is

    q, k, v = _rows(q), _rows(k), _rows(v)
    o = torch.empty(tokens, heads, size, dtype=q.dtype, device=q.device)
    tile = _tile(size, 0, q.device)
    table = _table(cu_seqlens, tokens, tile.rows)
    attention_forward_kernel[(table.shape[0], heads)](
        q, k, v, o, lse, table, q.stride(0), k.stride(0), v.stride(0), tokens, heads, scale / math.log(2),
        **_constants(q, k, tile),
    )  # fmt: skip
    return o, lse


def _constants(q: torch.Tensor, k: torch.Tensor, tile: Tile) -> dict[str, Any]:
    size = q.shape[2]
    return {
        "GROUP": q.shape[1] // k.shape[1],
        "SIZE": size,
        "BLOCK": _block(size),
        "BM": tile.rows,
        "BN": tile.columns,
        "PRECISION": "ieee" if q.dtype == torch.float32 else None,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def _block(size: int) -> int:
    return max(16, 1 << (size - 1).bit_length())


def _in_triton(q: torch.Tensor) -> bool:
    return q.numel() > 0 and q.dtype != torch.float64 and runs_in_triton(q)


def _backward(  # noqa: PLR0917  # the operator's schema
    do: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    cu_seqlens: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if not _in_triton(q):
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            out = packed_attention_reference(leaves[0], leaves[1], leaves[2], cu_seqlens, scale=scale)
            made = torch.autograd.grad(out, leaves, do)
        return made[0], made[1], made[2]
    from tiltyard_kernels.device import attention as device  # noqa: PLC0415  # only where Triton is there

    q, k, v, do = _rows(q), _rows(k), _rows(v), do.contiguous()
    tokens, heads, size = q.shape
    delta = torch.empty_like(lse)
    some = min(64, 8192 // _block(size))
    device.attention_delta_kernel[(-(-tokens // some), heads)](
        o, do, delta, tokens, heads, SIZE=size, BLOCK=_block(size), BM=some, num_warps=4
    )
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    shared = (q.stride(0), k.stride(0), v.stride(0), tokens, heads, scale / math.log(2), scale)
    tile = _tile(size, 1, q.device)
    table = _table(cu_seqlens, tokens, tile.columns)
    device.attention_key_gradient_kernel[(table.shape[0], k.shape[1])](
        q, k, v, do, lse, delta, dk, dv, table, *shared, **_constants(q, k, tile)
    )
    tile = _tile(size, 2, q.device)
    table = _table(cu_seqlens, tokens, tile.rows)
    device.attention_query_gradient_kernel[(table.shape[0], heads)](
        q, k, v, do, lse, delta, dq, table, *shared, **_constants(q, k, tile)
    )
    return dq, dk, dv


_LIBRARY.impl("packed_attention", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("packed_attention_backward", _backward, "CompositeExplicitAutograd")


@torch.library.register_fake("tiltyard::packed_attention", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(q: torch.Tensor, *_others: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)


@torch.library.register_fake("tiltyard::packed_attention_backward", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _(
    _do: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_others: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, k, v, cu_seqlens, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens)


def _gradient(ctx: Any, do: torch.Tensor, _dlse: Any) -> tuple[torch.Tensor | None, ...]:
    q, k, v, o, lse, cu_seqlens = ctx.saved_tensors
    return *torch.ops.tiltyard.packed_attention_backward(do, q, k, v, o, lse, cu_seqlens, ctx.scale), None, None


torch.library.register_autograd("tiltyard::packed_attention", _gradient, setup_context=_keep, lib=_LIBRARY)
