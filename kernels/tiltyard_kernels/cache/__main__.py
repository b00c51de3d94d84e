"""`python -m tiltyard_kernels.cache build|use`: see the package's own words."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tiltyard_kernels.cache.archive import CacheError, pack, use

# A Llama 3 8B.
LLAMA_8B = {
    "vocab_size": 128,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rope_theta": 500_000.0,
}
BASES = ("bfloat16", "nf4", "int4", "fp8", "fp8-dynamic")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tiltyard_kernels.cache", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="compile and pack; needs transformers and peft, and no GPU")
    build.add_argument("--gpu", default="nvidia-h200", help="nvidia-h200, nvidia-h100, nvidia-a100 or nvidia-l40s")
    build.add_argument("--model", type=Path, help="folder or config.json of a Llama or Qwen; default: a Llama 3 8B")
    build.add_argument(
        "--rank", type=int, nargs="+", default=[16, 64], help="of adapters; 0 for none, as a server has it"
    )
    build.add_argument("--base", nargs="+", choices=BASES, default=list(BASES))
    build.add_argument("--tokens", type=int, nargs="+", default=[8192], help="of a training batch")
    build.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[1, 8],
        help="of a forward: sequences that are decoded at once, or tokens of a prompt",
    )
    build.add_argument("--out", type=Path, required=True)
    take = commands.add_parser("use", help="unpack into Triton's cache, if it is for this installation and GPU")
    take.add_argument("archive", type=Path)
    take.add_argument("--into", type=Path, help="another folder, for TRITON_CACHE_DIR")
    take.add_argument("--sha256", help="the digest that the archive must have")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        count = _build(options) if options.command == "build" else _use(options)
    except (CacheError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(f"{count} kernels in {time.monotonic() - started:.1f} s")  # noqa: T201
    return 0


def _use(options: argparse.Namespace) -> int:
    return use(options.archive, into=options.into, sha256=options.sha256)


def _build(options: argparse.Namespace) -> int:
    from transformers import AutoConfig, LlamaConfig  # noqa: PLC0415  # only to build

    with tempfile.TemporaryDirectory() as folder:
        # Read by Triton when it first compiles. Only what is shipped is kept.
        os.environ |= {"TRITON_CACHE_DIR": folder, "TRITON_STORE_BINARY_ONLY": "1"}
        from tiltyard_kernels.cache.building import GPUS, compile_steps  # noqa: PLC0415

        if options.gpu not in GPUS:
            raise CacheError(f"{options.gpu} is no GPU that is known here: {', '.join(GPUS)}")
        gpu = GPUS[options.gpu]
        model = AutoConfig.from_pretrained(options.model) if options.model else LlamaConfig(**LLAMA_8B)
        model.num_hidden_layers = 2  # the first has no gradient of its input; the others launch what the second does
        compile_steps(gpu, model, ranks=options.rank, bases=options.base, tokens=options.tokens, rows=options.rows)
        return pack(Path(folder), 10 * gpu.capability[0] + gpu.capability[1], options.out)


if __name__ == "__main__":
    raise SystemExit(main())
