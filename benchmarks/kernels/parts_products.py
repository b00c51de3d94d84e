"""Parts without gradients, or of single products: launches, the mainloop, few rows, quantised weights, blocks."""

import itertools
import time
from functools import partial
from typing import Any

import torch
from harness import Bench, gradients, rotating

from tiltyard_kernels import blocks
from tiltyard_kernels.gemm import Config, matmul
from tiltyard_kernels.gemm.tune import LAYOUTS, SHAPES, inner_runs
from tiltyard_kernels.quantise import Int4Tensor, Nf4Tensor
from tiltyard_kernels.quantise.formats import unpack_nibbles
from tiltyard_kernels.quantise.linear import dequantised

EPS = 1e-5
WIDTHS = {"8B": (4096, 14336), "1B": (2048, 8192)}


def bandwidth(bench: Bench) -> None:
    """Copy bandwidth and cuBLAS's rate: the ceilings that other parts are held to."""
    size = bench.size(2 << 30, 1 << 10)
    a = torch.randn(size // 4, device=bench.device)
    b = torch.empty_like(a)
    # Not in a graph, where a copy becomes one of the slower copy engine.
    bench.compare("copy", {"copy": partial(b.copy_, a)}, in_graphs=False, facts={"bytes": 2.0 * size})
    n = bench.size(8192, 64)
    x, y = bench.randn(n, n), bench.randn(n, n)
    bench.compare(f"cuBLAS {n}³", {"cuBLAS": partial(torch.mm, x, y)}, facts={"flop": 2.0 * n**3})


def launch(bench: Bench) -> None:
    """The host's time for one small product, ours and PyTorch's, in ms a call."""
    a = bench.randn(128, 128)
    rows: dict[str, Any] = {}
    for name, call in {"ours": partial(matmul, a, a), "torch": partial(torch.mm, a, a)}.items():
        for _ in range(20):
            call()
        _wait(bench)
        start = time.perf_counter()
        for _ in range(500):
            call()
        rows[name] = (time.perf_counter() - start) / 500 * 1e3
        _wait(bench)
    bench.keep("host time of one product", {"ms": rows})


def _wait(bench: Bench) -> None:
    if not bench.is_tiny:
        torch.cuda.synchronize()


def mainloop(bench: Bench) -> None:
    """The table's choice against cuBLAS, forward (nt), dX (nn) and dW (tn), without launching."""
    shapes = [(64, 48, 32)] if bench.is_tiny else SHAPES
    for m, n, k in shapes:
        for layout in LAYOUTS:
            a = bench.randn(k, m).t() if layout[0] == "t" else bench.randn(m, k)
            b = bench.randn(n, k).t() if layout[1] == "t" else bench.randn(k, n)
            inner = 1 if bench.is_tiny else inner_runs((m, n, k))
            calls = {"ours": partial(matmul, a, b), "cuBLAS": partial(torch.mm, a, b)}
            if m * n <= 4096 * 4096:
                calls["ours, K in 2 parts"] = partial(matmul, a, b, config=Config(128, 128, 64, stages=4, split=2))
            facts = {"flop": 2.0 * m * n * k * inner}
            repeated = {name: rotating([call] * inner) for name, call in calls.items()}
            bench.compare(f"product {m}×{n}×{k} {layout}, {inner} times", repeated, facts=facts)


def few_rows(bench: Bench) -> None:
    """bf16 weights and 1 to 16 rows, weights rotated past the cache."""
    n, k = bench.size(14336, 64), bench.size(4096, 64)
    weights = [bench.randn(n, k) for _ in range(bench.size(4, 1))]
    for m in (1, 2, 4, 8, 16, 32):
        x = bench.randn(m, k)
        bench.compare(
            f"dense {m}×{n}×{k}, {len(weights)} weights",
            {
                "ours": rotating([partial(matmul, x, w.t()) for w in weights]),
                "cuBLAS": rotating([partial(torch.mm, x, w.t()) for w in weights]),
            },
            facts={"bytes": 2.0 * n * k * len(weights)},
        )


def int4(bench: Bench) -> None:
    """int4 weights in groups of 128, rotated past the cache, against gemlite and torchao; 1 and 16 rows."""
    shapes = [(64, 256)] if bench.is_tiny else [(4096, 14336), (14336, 4096), (28672, 4096)]
    for m, (n, k) in itertools.product((1, 16), shapes):
        dense = [bench.randn(n, k, scale=k**-0.5) for _ in range(bench.size(6, 1))]
        ours = [Int4Tensor.quantise(w, 128) for w in dense]
        peers = {
            name: made
            for name, made in (("torchao", _torchao(bench, dense)), ("gemlite", _gemlite(bench, ours)))
            if made
        }
        x = bench.randn(m, k)
        calls = {"ours": rotating([partial(torch.nn.functional.linear, x, w) for w in ours])}
        calls["bf16 cuBLAS"] = rotating([partial(torch.nn.functional.linear, x, w) for w in dense])
        calls |= {name: rotating([partial(layer, x) for layer in layers]) for name, layers in peers.items()}
        facts = {"bytes": (n * k / 2 + n * k / 128 * 2) * len(ours)}
        bench.compare(f"int4 {m}×{n}×{k}, {len(ours)} weights", calls, facts=facts)


def _linear(weight: torch.Tensor) -> torch.nn.Linear:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    return layer


def _torchao(bench: Bench, weights: list[torch.Tensor]) -> list[Any] | None:
    module = bench.peer("torchao.quantization")
    if module is None or bench.is_tiny:
        return None
    try:
        layers = [_linear(weight) for weight in weights]
        config = module.Int4WeightOnlyConfig(group_size=128, int4_packing_format="tile_packed_to_4d")
        for layer in layers:
            module.quantize_(layer, config)
    except Exception as error:  # whatever a peer raises is its result
        bench.missing["torchao int4"] = f"{type(error).__name__}: {error}"[:300]
        return None
    return layers


def _gemlite(bench: Bench, weights: list[Int4Tensor]) -> list[Any] | None:
    """gemlite's linears over the codes and scales that ours have."""
    module = bench.peer("gemlite.helper")
    if module is None or bench.is_tiny:
        return None
    try:
        processor = module.A16W4_HQQ_INT(device="cuda", dtype=torch.bfloat16)
        layers = []
        for weight in weights:
            codes = unpack_nibbles(weight.values).to(torch.uint8)
            layers.append(processor.from_weights(codes, weight.scale, torch.full_like(weight.scale, 8.0)))
    except Exception as error:  # as above
        bench.missing["gemlite int4"] = f"{type(error).__name__}: {error}"[:300]
        return None
    return layers


def crossover(bench: Bench) -> None:
    """Where widening once beats widening in the loop: what IN_LOOP_ROWS_MAX is to be. NF4 is always widened once."""
    from tiltyard_kernels.quantise import linear as module  # noqa: PLC0415  # its limit is changed here

    n, k = bench.size(14336, 64), bench.size(4096, 64)
    for make, group in ((Int4Tensor, bench.size(128, 32)), (Nf4Tensor, bench.size(64, 32))):
        weight = make.quantise(bench.randn(n, k, scale=k**-0.5), group)
        bench.compare(f"widening {make.__name__} {n}×{k}", {"ours": partial(dequantised, weight, bench.dtype)})
        for m in (32, 64, 128, 256, 512, 1024):
            x = bench.randn(m, k)

            def limited(limit: int, x: torch.Tensor = x, weight: torch.Tensor = weight) -> torch.Tensor:
                kept, module.IN_LOOP_ROWS_MAX = module.IN_LOOP_ROWS_MAX, limit
                try:
                    return torch.nn.functional.linear(x, weight)
                finally:
                    module.IN_LOOP_ROWS_MAX = kept

            calls = {"once": partial(limited, 0)}
            if weight.packed().fits_the_loop:
                calls["in the loop"] = partial(limited, 1 << 30)
            bench.compare(f"{make.__name__} {m}×{n}×{k}", calls)


def eager_mlp(h: torch.Tensor, gain: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> Any:
    x = torch.nn.functional.rms_norm(h, (h.shape[1],), gain, EPS)
    return h + (torch.nn.functional.silu(x @ gate.t()) * (x @ up.t())) @ down.t()


def fused_mlp(h: torch.Tensor, rstd: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    return blocks.mlp(h, rstd, gate_up, down, eps=EPS)[0]


def _both(h: torch.Tensor, gate_up: torch.Tensor, wide: torch.Tensor, down: torch.Tensor) -> None:
    torch.mm(h, gate_up.t())
    torch.mm(wide, down.t())


def mlp(bench: Bench) -> None:
    """Norm, gate/up, SwiGLU, down and residual: forward, and forward with backward, everything trained."""
    compiled = bench.compiled(eager_mlp)
    sizes = {"tiny": (32, 48)} if bench.is_tiny else WIDTHS
    for name, (d, f) in sizes.items():
        gate, up, down = (bench.randn(*s, scale=s[1] ** -0.5) for s in ((f, d), (f, d), (d, f)))
        gain = torch.ones(d, device=bench.device, dtype=bench.dtype)
        gate_up = blocks.interleave_gate_up(gate, up)
        for tokens in (16,) if bench.is_tiny else bench.tokens:
            h, dy = bench.randn(tokens, d), bench.randn(tokens, d)
            rstd = blocks.rstd_of(h, EPS)
            facts = {"flop": 6.0 * tokens * d * f}
            with torch.no_grad():
                calls = {"ours": partial(fused_mlp, h, rstd, gate_up, down)}
                calls["eager"] = partial(eager_mlp, h, gain, gate, up, down)
                calls["compile"] = partial(compiled, h, gain, gate, up, down)
                wide = bench.randn(tokens, f)
                calls["its products"] = partial(_both, h, gate_up, wide, down)
                bench.compare(f"MLP {name} T={tokens} forward", calls, facts=facts)
            plain = [x.detach().requires_grad_() for x in (h, gain, gate, up, down)]
            ours = [x.detach().requires_grad_(x is not rstd) for x in (h, rstd, gate_up, down)]
            calls = {"ours": gradients(fused_mlp, ours, dy), "eager": gradients(eager_mlp, plain, dy)}
            calls["compile"] = gradients(compiled, plain, dy)
            what, facts = f"MLP {name} T={tokens} forward+backward", {"flop": 3 * facts["flop"]}
            bench.compare(what, calls, in_graphs=False, facts=facts)
            bench.compare(f"{what}, in CUDA graphs", calls, facts=facts)


def eager_projections(  # noqa: PLR0917  # the block's tensors
    h: torch.Tensor,
    gain: torch.Tensor,
    qkv: torch.Tensor,
    o: torch.Tensor,
    out: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    rotated: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What stands around a Llama's attention: norm, QKV and RoPE, as transformers has it; output and residual."""
    y = torch.nn.functional.rms_norm(h, (h.shape[1],), gain, EPS) @ qkv.t()
    heads = y[:, :rotated].unflatten(1, (-1, 2 * cos.shape[1]))  # type: ignore[no-untyped-call]
    left, right = heads.chunk(2, 2)
    turned = (
        heads * torch.cat((cos, cos), 1)[:, None] + torch.cat((-right, left), 2) * torch.cat((sin, sin), 1)[:, None]
    )
    return torch.cat((turned.flatten(1), y[:, rotated:]), 1), h + o @ out.t()


def fused_projections(  # noqa: PLR0917  # as above
    h: torch.Tensor,
    rstd: torch.Tensor,
    qkv: torch.Tensor,
    o: torch.Tensor,
    out: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    rotated: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    y = blocks.qkv_projection(h, rstd, qkv, cos, sin, rotated=rotated)
    return y, blocks.output_projection(o, out, h, eps=EPS)[0]


def projections(bench: Bench) -> None:
    """Attention's two projections as a block, attention itself left out: forward, and with backward, all trained.

    D 4096: 32 heads of 128 on 8; D 2048: 32 of 64 on 8, as Llama's 8B and 1B.
    """
    compiled = bench.compiled(eager_projections)
    sizes = {"tiny": (32, 4, 8)} if bench.is_tiny else {"8B": (4096, 32, 128), "1B": (2048, 32, 64)}
    for name, (d, heads, head_dim) in sizes.items():
        turned, columns = (heads + heads // 4) * head_dim, (heads + heads // 2) * head_dim
        qkv, out = bench.randn(columns, d, scale=d**-0.5), bench.randn(d, d, scale=d**-0.5)
        gain = torch.ones(d, device=bench.device, dtype=bench.dtype)
        for tokens in (16,) if bench.is_tiny else bench.tokens:
            h, o, dh = (bench.randn(tokens, d) for _ in range(3))
            dy = bench.randn(tokens, columns)
            frequencies = 500_000.0 ** (-torch.arange(0, head_dim, 2, device=bench.device) / head_dim)
            angle = torch.arange(tokens, device=bench.device)[:, None] * frequencies
            cos, sin = angle.cos(), angle.sin()
            tables = (cos.to(bench.dtype), sin.to(bench.dtype), turned)  # as transformers has them in a bf16 model
            rstd = blocks.rstd_of(h, EPS)
            facts = {"flop": 2.0 * tokens * d * (columns + d)}
            with torch.no_grad():
                calls = {"ours": partial(fused_projections, h, rstd, qkv, o, out, cos, sin, turned)}
                calls["eager"] = partial(eager_projections, h, gain, qkv, o, out, *tables)
                calls["compile"] = partial(compiled, h, gain, qkv, o, out, *tables)
                calls["its products"] = partial(_both, h, qkv, o, out)
                bench.compare(f"projections {name} T={tokens} forward", calls, facts=facts)
            plain = [x.detach().requires_grad_() for x in (h, gain, qkv, o, out)]
            ours = [x.detach().requires_grad_(x is not rstd) for x in (h, rstd, qkv, o, out)]
            pairs = {
                "ours": (fused_projections, ours, (cos, sin, turned)),
                "eager": (eager_projections, plain, tables),
                "compile": (compiled, plain, tables),
            }
            calls = {
                what: partial(_projection_gradients, function, leaves, others, (dy, dh))
                for what, (function, leaves, others) in pairs.items()
            }
            what, facts = f"projections {name} T={tokens} forward+backward", {"flop": 3 * facts["flop"]}
            bench.compare(what, calls, in_graphs=False, facts=facts)
            bench.compare(f"{what}, in CUDA graphs", calls, facts=facts)


def _projection_gradients(
    function: Any, leaves: list[torch.Tensor], others: tuple[Any, ...], gradients_of: tuple[torch.Tensor, ...]
) -> Any:
    y = function(*leaves, *others)
    return torch.autograd.grad(y, [leaf for leaf in leaves if leaf.requires_grad], gradients_of)
