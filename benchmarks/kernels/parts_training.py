"""Parts that train: the loss, LoRA and QLoRA steps of an 8B-shaped model, and attention over packed documents."""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import Bench, gradients

from tiltyard_kernels import patch
from tiltyard_kernels.attention import packed_attention
from tiltyard_kernels.cross_entropy import linear_cross_entropy
from tiltyard_kernels.quantise import Fp8, Int4, Nf4, quantize_

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LAYERS = 4  # of 32: a step of all would leave no time for the peers; the share of embeddings and head is taken out


def head(bench: Bench) -> None:
    """LM head and cross-entropy, all gradients, with a trained and with a frozen head; peak memory beside the time."""
    tokens, width, vocabulary = bench.size(8192, 32), bench.size(4096, 16), bench.size(128_256, 50)
    x = bench.randn(tokens, width, scale=0.5).requires_grad_()
    labels = torch.randint(0, vocabulary, (tokens,), device=bench.device)

    def eager(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy((x @ w.t()).float(), labels)

    for is_trained in (True, False):
        w = bench.randn(vocabulary, width, scale=width**-0.5).requires_grad_(is_trained)
        functions: dict[str, Callable[..., torch.Tensor]] = {
            "ours": lambda x, w: linear_cross_entropy(x, w, labels).loss,
            "eager": eager,
            "compile": bench.compiled(eager),
        }
        liger, cce = bench.peer("liger_kernel.transformers"), bench.peer("cut_cross_entropy")
        if liger is not None and not bench.is_tiny:
            loss = liger.LigerFusedLinearCrossEntropyLoss()
            functions["Liger"] = lambda x, w, loss=loss: loss(w, x, labels)
        if cce is not None and not bench.is_tiny:
            functions["CCE"] = lambda x, w, cce=cce: cce.linear_cross_entropy(x, w, labels)
        calls = {name: gradients(function, [x, w]) for name, function in functions.items()}
        what = f"head T={tokens} H={width} V={vocabulary} {'trained' if is_trained else 'frozen'}"
        bench.compare(
            what, calls, in_graphs=False, facts={"flop": 2.0 * tokens * width * vocabulary * (2 + is_trained)}
        )
        if not bench.is_tiny and f"{what}, peak memory" not in bench.rows:
            bench.keep(f"{what}, peak memory", {"gib": {name: _peak_gib(call) for name, call in calls.items()}})


def _peak_gib(call: Callable[[], Any]) -> float | None:
    """Above what was there before, gradients included."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    try:
        call()
    except Exception:  # noted by the timing
        return None
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def llama(bench: Bench) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415  # only for these parts

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=bench.size(4096, 64),
        intermediate_size=bench.size(14336, 96),
        num_hidden_layers=bench.size(LAYERS, 2),
        num_attention_heads=bench.size(32, 4),
        num_key_value_heads=bench.size(8, 2),
        rope_theta=500_000.0,
    )
    torch.manual_seed(0)
    with torch.device(bench.device):
        return LlamaForCausalLM(config).to(bench.dtype)


def with_adapters(model: Any, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415  # only for these parts

    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS))


def training_step(model: Any, tokens: torch.Tensor) -> Callable[[], Any]:
    trained = [p for p in model.parameters() if p.requires_grad]

    def run() -> Any:
        hidden = model.base_model.model.model(input_ids=tokens, use_cache=False).last_hidden_state
        return torch.autograd.grad(hidden.float().square().mean(), trained)

    return run


def _compare_steps(bench: Bench, what: str, makers: dict[str, Callable[[], Any]]) -> None:
    """Steps of several models, one model in memory at a time, so that peak memory is each one's own."""
    length = bench.size(2048, 8)
    tokens = torch.randint(0, 64, (bench.size(4, 2), length), device=bench.device)
    for name, make in makers.items():
        if bench.leaves_out(name) or not bench.is_wanted(f"{what}: {name}"):
            continue
        try:
            step = training_step(make(), tokens)
            step()
        except Exception as error:  # whatever a peer raises is its result
            if bench.is_tiny:
                raise
            bench.keep(f"{what}: {name}", {"errors": {name: f"{type(error).__name__}: {error}"[:300]}})
            continue
        bench.compare(f"{what}: {name}", {name: step}, in_graphs=False, facts={"tokens": float(tokens.numel())})
        if not bench.is_tiny:
            bench.rows[f"{what}: {name}"]["gib"] = {name: _peak_gib(step)}
            bench.save()
            if name == "ours":  # what the host costs: the same step without it
                bench.compare(f"{what}: ours, in a CUDA graph", {"ours, in a CUDA graph": step})
        del step
        gc.collect()


def lora(bench: Bench) -> None:
    """LoRA steps over a bf16 base, ranks 16 and 64, 8192 tokens: ours, peft, peft compiled, peft with Liger."""
    for rank in bench.ranks:
        makers: dict[str, Callable[[], Any]] = {
            "ours": partial(_ours, bench, rank, None),
            "peft": lambda rank=rank: with_adapters(llama(bench), rank),
        }
        if bench.peer("liger_kernel.transformers") is not None and not bench.is_tiny:
            makers["peft + Liger"] = partial(_liger, bench, rank)
        makers["peft + compile"] = lambda rank=rank: _compiled(bench, with_adapters(llama(bench), rank))
        _compare_steps(bench, f"LoRA r={rank}", makers)


def _ours(bench: Bench, rank: int, base: Any) -> Any:
    model = with_adapters(llama(bench), rank)
    if base is not None:
        quantize_(model, base)
    patch(model)
    return model


def _compiled(bench: Bench, model: Any) -> Any:
    if not bench.is_tiny:
        model.base_model.model.model.compile(mode=bench.mode, dynamic=False)
    return model


def _liger(bench: Bench, rank: int) -> Any:
    from liger_kernel.transformers import apply_liger_kernel_to_llama  # type: ignore[import-not-found]  # noqa: PLC0415

    model = with_adapters(llama(bench), rank)
    apply_liger_kernel_to_llama(model=model.base_model.model, rope=True, rms_norm=True, swiglu=True)
    return model


def first_call(bench: Bench) -> None:
    """A fresh process to its first step: with no compiled kernel, with what that process left, with a shipped cache."""
    script = str(Path(__file__).with_name("first_call.py"))
    with tempfile.TemporaryDirectory() as folder:
        for name, cache in (("nothing compiled", "own"), ("kernels compiled", "own"), ("shipped cache", "shipped")):
            what = f"first call, {name}"
            if not bench.is_wanted(what) or (bench.is_tiny and cache == "shipped"):
                continue
            facts: dict[str, Any] = {}
            if cache == "shipped":
                facts = _ship(Path(folder))
            run = subprocess.run(
                [sys.executable, script, *(["--tiny"] if bench.is_tiny else [])],
                env=os.environ | {"TRITON_CACHE_DIR": f"{folder}/{cache}"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            made = json.loads(run.stdout.splitlines()[-1])
            size = sum(path.stat().st_size for path in Path(folder, cache).rglob("*") if path.is_file())
            ms = {key: value * 1e3 for key, value in made.pop("seconds").items()}
            bench.keep(what, {"ms": ms, "cache_bytes": size, **made, **facts})


def _ship(folder: Path) -> dict[str, Any]:
    """Build an archive as if there were no GPU, and unpack it; how long either took, and its size."""
    archive = folder / "kernels.zip"
    command = [sys.executable, "-m", "tiltyard_kernels.cache"]
    started = time.perf_counter()
    build = [*command, "build", "--out", str(archive), "--rank", "16", "--base", "bfloat16", "--rows", "1"]
    subprocess.run(build, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=True, stdout=subprocess.DEVNULL)
    built = time.perf_counter()
    take = [*command, "use", str(archive), "--into", str(folder / "shipped")]
    subprocess.run(take, check=True, stdout=subprocess.DEVNULL)
    return {
        "build_s": built - started,
        "unpack_s": time.perf_counter() - built,
        "archive_bytes": archive.stat().st_size,
    }


def qlora(bench: Bench) -> None:
    """Steps over quantised bases: ours, peft with bitsandbytes' NF4, peft with torchao's NF4."""
    group = bench.size(128, 32)
    makers: dict[str, Callable[[], Any]] = {
        "ours, bf16": partial(_ours, bench, 16, None),
        "ours, fp8 times fp8": partial(_ours, bench, 16, Fp8(dynamic=True)),
        "ours, fp8 weights": partial(_ours, bench, 16, Fp8()),
        "ours, NF4": partial(_ours, bench, 16, Nf4(bench.size(64, 32))),
        "ours, int4": partial(_ours, bench, 16, Int4(group)),
    }
    if bench.peer("torchao.dtypes.nf4tensor") is not None and not bench.is_tiny:
        makers["peft + torchao NF4"] = partial(_torchao, bench)
    if bench.peer("bitsandbytes") is not None and not bench.is_tiny:
        makers["peft + bitsandbytes"] = partial(_bitsandbytes, bench)
        makers["ours over bitsandbytes' weights"] = partial(_bitsandbytes, bench, is_patched=True)
    _compare_steps(bench, "QLoRA r=16", makers)


def _torchao(bench: Bench) -> Any:
    """torchao's NF4 weights under its own linear, with plain LoRA beside it: peft does not take these weights."""
    from torchao.dtypes.nf4tensor import NF4Tensor, linear_nf4  # type: ignore[import-not-found]  # noqa: PLC0415

    class Linear(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = linear_nf4(x, self.weight)
            return y

    model = llama(bench)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and name in TARGETS:
                made = Linear(child.in_features, child.out_features, bias=False, device="meta")
                packed = NF4Tensor.from_tensor(child.weight.data, 64, 256)
                made.weight = torch.nn.Parameter(packed, requires_grad=False)
                setattr(module, name, made)
    return with_adapters(model, 16)


def _bitsandbytes(bench: Bench, *, is_patched: bool = False) -> Any:
    import bitsandbytes as bnb  # type: ignore[import-not-found]  # noqa: PLC0415  # only where it is there

    model = llama(bench)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and name in TARGETS:
                made = bnb.nn.Linear4bit(
                    child.in_features, child.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
                )
                made.weight = bnb.nn.Params4bit(child.weight.data.cpu(), requires_grad=False, quant_type="nf4")
                setattr(module, name, made.to("cuda"))
    model = with_adapters(model, 16)
    if is_patched:
        patch(model)
    return model


def attention(bench: Bench) -> None:
    """8 to 64 documents in 16k tokens, 32 heads on 8: ours, compiled FlexAttention with its mask, SDPA with a mask."""
    tokens, heads, kv_heads, size = bench.size(16384, 24), bench.size(32, 4), bench.size(8, 2), bench.size(128, 16)
    for documents in (2,) if bench.is_tiny else (8, 16, 64):
        generator = torch.Generator().manual_seed(documents)
        cuts = torch.randperm(tokens - 1, generator=generator)[: documents - 1].sort().values + 1
        bounds = torch.cat((torch.tensor([0]), cuts, torch.tensor([tokens]))).to(torch.int32).to(bench.device)
        q = bench.randn(tokens, heads, size).requires_grad_()
        k, v = (bench.randn(tokens, kv_heads, size).requires_grad_() for _ in range(2))
        do = bench.randn(tokens, heads, size)
        functions = {
            "ours": partial(packed_attention, cu_seqlens=bounds),
            "SDPA, mask made": partial(_sdpa, bounds=bounds),
        }
        if not bench.is_tiny:  # it has no backward on a CPU
            functions["FlexAttention, mask made"] = _flex(bounds, tokens)
        calls = {name: (lambda f=f, q=q, k=k, v=v: f(q, k, v)) for name, f in functions.items()}
        what = f"attention {documents} documents in {tokens}"
        with torch.no_grad():
            bench.compare(f"{what} forward", calls, in_graphs=False)
        calls = {name: gradients(f, [q, k, v], do) for name, f in functions.items()}
        bench.compare(f"{what} forward+backward", calls, in_graphs=False)


def _document_of(bounds: torch.Tensor, tokens: int) -> torch.Tensor:
    return torch.bucketize(torch.arange(tokens, device=bounds.device, dtype=bounds.dtype), bounds[1:], right=True)


def _flex(bounds: torch.Tensor, tokens: int) -> Callable[..., torch.Tensor]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention  # noqa: PLC0415  # only here

    attend: Any = torch.compile(flex_attention, dynamic=False)

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        document = _document_of(bounds, tokens)

        def mask(_b: Any, _h: Any, row: Any, column: Any) -> Any:
            return (document[row] == document[column]) & (column <= row)

        blocks = create_block_mask(mask, None, None, tokens, tokens, device=bounds.device)
        parts = (x.transpose(0, 1)[None] for x in (q, k, v))
        o: torch.Tensor = attend(*parts, block_mask=blocks, enable_gqa=True)
        return o[0].transpose(0, 1)

    return run


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, bounds: torch.Tensor) -> torch.Tensor:
    document = _document_of(bounds, q.shape[0])
    mask = (document[:, None] == document[None, :]).tril()
    parts = (x.transpose(0, 1)[None] for x in (q, k, v))
    o = torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask, enable_gqa=True)
    return o[0].transpose(0, 1)
