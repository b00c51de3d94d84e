"""Do LoRA and QLoRA train to the same losses through the kernels as through plain peft? Squire, step by step.

    python benchmarks/kernels/loss_curves.py --make-data
    PYTHONPATH=kernels:baselines python benchmarks/kernels/loss_curves.py --steps 300 --out DIR

Every curve has the same seed, batches and first adapter weights, and computes in bf16 autocast:

lora-peft             plain peft, eager
lora-kernels          peft and tiltyard_kernels.patch
lora-float32          plain peft without autocast: how far rounding alone moves a curve
qlora-widened         plain peft over the NF4 weights widened to a plain matrix: QLoRA without kernels
qlora-kernels         NF4 weights and tiltyard_kernels.patch
qlora-bitsandbytes    plain peft over bitsandbytes' NF4, where bitsandbytes can be imported
qlora-bnb-kernels     the very codes of bitsandbytes, and tiltyard_kernels.patch

Writes NAME.jsonl for each curve, losses.csv, loss-curves.svg and summary.json, and prints the differences. With --data
made beforehand it needs torch, transformers, peft and safetensors, and Triton on a GPU.
"""

import argparse
import csv
import importlib.util
import itertools
import json
import logging
import math
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiltyard_baselines.data import EncodedItems, batches, encode_items, read_items
from tiltyard_baselines.lora import LINEAR_LAYERS, ROW_TOKENS, add_adapter, run_on_kernels
from tiltyard_baselines.plot import Curve, overlay
from tiltyard_baselines.quantised import NF4, quantise_base
from tiltyard_baselines.training import Schedule, train
from tiltyard_kernels.quantise import QuantisedTensor

ROOT = Path(__file__).resolve().parents[2]
SQUIRE = ROOT / "baselines" / "squire"
DATA = ROOT / "var" / "loss-curves.npz"
ITEMS = 40_000  # about a million tokens, some 250 steps; 300 steps begin a second epoch
RANK, LEARNING_RATE, ROWS, SEED = 32, 3e-3, 16, 1  # the lora submission's

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """One way to train: what the base is turned into, whether the kernels run, in which dtype, and how it is drawn."""

    base: Callable[[Any], object]
    on_kernels: bool
    curve: Curve
    compute: torch.dtype = torch.bfloat16
    needs: str = "torch"


def as_it_is(model: Any) -> None:
    """Leave the base alone."""


def widen_nf4(model: Any) -> None:
    """Round the base to what its NF4 weights stand for, as plain fp32 matrices."""
    quantise_base(model)
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, QuantisedTensor):
            module.weight = torch.nn.Parameter(weight.dequantise(torch.float32), requires_grad=False)


def quantise_with_bitsandbytes(model: Any) -> None:
    """The same linears as bitsandbytes' Linear4bit: NF4, blocks of 64, double quantisation."""
    import bitsandbytes as bnb  # type: ignore[import-not-found]  # noqa: PLC0415  # optional

    for parent in list(model.modules()):
        for name, linear in list(parent.named_children()):
            if name in LINEAR_LAYERS:
                made = bnb.nn.Linear4bit(
                    linear.in_features, linear.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
                )
                made.weight = bnb.nn.Params4bit(
                    linear.weight.data,
                    requires_grad=False,
                    quant_type="nf4",
                    blocksize=NF4.group,
                    compress_statistics=NF4.double,
                )
                setattr(parent, name, made)
    model.is_loaded_in_4bit = True  # by which peft takes its own linear for such bases


# Wide and pale is what the kernels are held to, thin and dark the kernels: where one covers the other they agree.
WAYS = {
    "lora-peft": Way(as_it_is, False, Curve("LoRA, peft", (), "#9ec5ee", 5)),
    "lora-kernels": Way(as_it_is, True, Curve("LoRA, peft + tiltyard_kernels", (), "#123a66", 1.2)),
    "lora-float32": Way(as_it_is, False, Curve("LoRA, peft in fp32", (), "#5a8f5a", 1, "1 3"), torch.float32),
    "qlora-widened": Way(widen_nf4, False, Curve("QLoRA, peft over widened NF4", (), "#f6d3a4", 5)),
    "qlora-kernels": Way(quantise_base, True, Curve("QLoRA, peft + tiltyard_kernels", (), "#8a3b12", 1.2)),
    "qlora-bitsandbytes": Way(
        quantise_with_bitsandbytes, False, Curve("QLoRA, peft + bitsandbytes", (), "#d9b8e8", 3), needs="bitsandbytes"
    ),
    "qlora-bnb-kernels": Way(
        quantise_with_bitsandbytes,
        True,
        Curve("the same codes on tiltyard_kernels", (), "#4b1f63", 1, "4 2"),
        needs="bitsandbytes",
    ),
}
COMPARED = (
    ("lora-peft", "lora-kernels"),
    ("lora-peft", "lora-float32"),
    ("qlora-widened", "qlora-kernels"),
    ("qlora-kernels", "qlora-bitsandbytes"),
    ("qlora-bitsandbytes", "qlora-bnb-kernels"),
    ("lora-peft", "qlora-widened"),
)


def main() -> None:
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.make_data:
        make_data(options.data)
        return
    if options.redraw:
        print(redraw(options))
        return
    if not options.data.exists():
        sys.exit(f"{options.data} is missing: make it with --make-data, where the evaluator is installed")
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    data = read_data(options.data)
    losses: dict[str, list[float]] = {}
    paces: dict[str, float] = {}
    summary = ""
    missing = [name for name, way in WAYS.items() if importlib.util.find_spec(way.needs) is None]
    for name in (name for name in options.only or WAYS if name not in missing):
        logger.info("%s: %d steps", name, options.steps)
        losses[name], paces[name] = train_one(name, data, options)
        summary = report(losses, paces, missing, machine_of(options), options.out)
    print(summary)


def make_data(path: Path) -> None:
    """Draw questions from the lora submission's mix and keep their tokens."""
    with tempfile.TemporaryDirectory() as folder:
        items = Path(folder) / "items.jsonl"
        command = [sys.executable, "-m", "tiltyard_eval", "generate", "--seed", "8", "--count", str(ITEMS)]
        command += ["--mix", str(ROOT / "baselines" / "submissions" / "lora" / "mix.yaml")]
        command += ["--exclude", str(ROOT / "competitions" / "demo" / "suites" / "open"), "--out", str(items)]
        subprocess.run(command, check=True)
        data = encode_items(read_items([items]), AutoTokenizer.from_pretrained(SQUIRE), ROW_TOKENS)
    path.parent.mkdir(parents=True, exist_ok=True)
    lengths = np.diff(data.starts).astype(np.uint16)
    prompts = (data.answers - data.starts[:-1]).astype(np.uint16)
    np.savez_compressed(path, tokens=data.tokens, lengths=lengths, prompts=prompts)
    logger.info("%s: %d items, %d tokens, %d bytes", path, len(data), len(data.tokens), path.stat().st_size)


def read_data(path: Path) -> EncodedItems:
    with np.load(path) as stored:
        starts = np.concatenate([[0], np.cumsum(stored["lengths"], dtype=np.int64)])
        return EncodedItems(stored["tokens"], starts, starts[:-1] + stored["prompts"])


def train_one(name: str, data: EncodedItems, options: argparse.Namespace) -> tuple[list[float], float]:
    """Train in one of ``WAYS``; return what ``read_curve`` does."""
    way = WAYS[name]
    model = AutoModelForCausalLM.from_pretrained(SQUIRE, dtype=torch.float32, local_files_only=True)
    way.base(model)
    model = add_adapter(model, RANK, SEED)
    begin_alike(model)
    model = model.to(options.device)
    if way.on_kernels:
        run_on_kernels(model)
    log_path: Path = options.out / f"{name}.jsonl"
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    train(
        model,
        batches(data, options.rows, ROW_TOKENS, 0.0, SEED),
        [torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)],
        Schedule(options.steps, math.inf, warmup_fraction=0.05, decay_fraction=0.9),
        device=torch.device(options.device),
        log_path=log_path,
        log_every=1,
        compute=way.compute,
    )
    return read_curve(log_path)


def read_curve(log_path: Path) -> tuple[list[float], float]:
    """Return the loss of every step, and the mean step's milliseconds over the second half."""
    records = [json.loads(line) for line in log_path.read_text(encoding="utf-8").splitlines()]
    second_half = records[len(records) // 2 :]
    elapsed_s = second_half[-1]["elapsed_s"] - second_half[0]["elapsed_s"]
    return [record["loss"] for record in records], 1e3 * elapsed_s / max(1, len(second_half) - 1)


def redraw(options: argparse.Namespace) -> str:
    """The report over the curves that lie in --out, whole or cut off."""
    known = json.loads((options.out / "summary.json").read_text(encoding="utf-8"))
    machine = {key: known[key] for key in ("device", "torch", "tokens_per_step")}
    found = {name: read_curve(path) for name in WAYS if (path := options.out / f"{name}.jsonl").exists()}
    losses = {name: values for name, (values, _) in found.items()}
    paces = {name: pace for name, (_, pace) in found.items()}
    return report(losses, paces, [name for name in WAYS if name not in found], machine, options.out)


def machine_of(options: argparse.Namespace) -> dict[str, Any]:
    is_cuda = options.device.startswith("cuda")
    device = torch.cuda.get_device_name() if is_cuda else f"CPU ({platform.machine()})"
    return {"device": device, "torch": torch.__version__, "tokens_per_step": options.rows * ROW_TOKENS}


_first_weights: dict[str, torch.Tensor] = {}


def begin_alike(model: Any) -> None:
    """Give the adapter the weights that the first one began with; peft's classes draw theirs in different orders."""
    weights = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    if not _first_weights:
        _first_weights.update({name: weight.detach().clone() for name, weight in weights.items()})
    if weights.keys() != _first_weights.keys():
        raise RuntimeError("the adapters differ in their layers, so that their curves cannot be compared")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(_first_weights[name])


def report(
    losses: dict[str, list[float]],
    paces: dict[str, float],
    missing: list[str],
    machine: dict[str, Any],
    out: Path,
) -> str:
    """Write all that is known so far, so that a run that is cut off leaves its finished curves; return the summary."""
    with (out / "losses.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *losses])
        rows = itertools.zip_longest(*losses.values(), fillvalue="")
        writer.writerows([step, *row] for step, row in enumerate(rows, start=1))
    curves = [Curve(c.label, losses[name], c.colour, c.width, c.dashes) for name in losses for c in (WAYS[name].curve,)]
    overlay(curves, out / "loss-curves.svg", f"loss on answers, nats per token; rank {RANK}; {machine['device']}")
    differences = {f"{a} - {b}": differ(losses[a], losses[b]) for a, b in COMPARED if a in losses and b in losses}
    last = {name: round(statistics.fmean(values[-50:]), 5) for name, values in losses.items()}
    summary = {
        **machine,
        "steps": {name: len(values) for name, values in losses.items()},
        "not_there": missing,
        "mean_loss_of_last_50": last,
        "ms_per_step": {name: round(pace, 1) for name, pace in paces.items()},
        "differences": differences,
    }
    text = json.dumps(summary, indent=1)
    (out / "summary.json").write_text(text + "\n", encoding="utf-8")
    return text


def differ(a: list[float], b: list[float]) -> dict[str, float]:
    """The largest difference of two curves over the steps that both have, its step, and mean differences."""
    pairs = list(zip(a, b, strict=False))
    apart = [abs(x - y) for x, y in pairs]
    largest = max(apart)
    return {
        "steps": len(pairs),
        "first_step": round(apart[0], 5),
        "largest": round(largest, 5),
        "at_step": apart.index(largest) + 1,
        "mean": round(statistics.fmean(apart), 5),
        "mean_signed": round(statistics.fmean(y - x for x, y in pairs), 5),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--make-data", action="store_true", help="draw the training questions, write --data, and stop")
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        help="the questions' tokens, under 2 MB. The default, var/loss-curves.npz, is ignored by git: make it with "
        "--make-data (seconds) and take it along to a machine without the evaluator",
    )
    parser.add_argument(
        "--redraw",
        action="store_true",
        help="train nothing: report the curves in --out, also of a run that was cut off",
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of {ROW_TOKENS} tokens in a batch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--only", nargs="+", choices=WAYS, help="train these alone")
    parser.add_argument("--out", type=Path, default=DATA.with_suffix(""), help="folder to write to")
    options = parser.parse_args()
    if options.steps < 1 or options.rows < 1:
        parser.error("--steps and --rows must be at least 1")
    return options


if __name__ == "__main__":
    main()
