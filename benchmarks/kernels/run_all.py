"""Every kernel beside every peer that is there, in parts, under a budget of time, resumable; then a table and plots.

    PYTHONPATH=kernels:benchmarks/kernels python benchmarks/kernels/run_all.py --out kernels.json --budget-s 540
    … --part attention --part head        only these
    … --tiny                              on a CPU, with tiny sizes: shows that the parts run, measures nothing

A row that is in the file already is not measured again, so a run that was cut off goes on where it stopped. Peers come
as packages (liger-kernel, cut-cross-entropy, torchao 0.17, gemlite, bitsandbytes, peft); one that is not there is named
in the file. bfloat16, random data, medians, functions taking turns. Forwards of products run in CUDA graphs; forward
with backward from the host.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import parts_adapters as adapters
import parts_products as products
import parts_training as training
import torch
from harness import Bench, BudgetSpentError

# The rows that answer the project's questions come first.
PARTS = {
    "bandwidth": products.bandwidth,
    "launch": products.launch,
    "lora": training.lora,
    "qlora": training.qlora,
    "int4": products.int4,
    "attention": training.attention,
    "head": training.head,
    "mainloop": products.mainloop,
    "mlp": products.mlp,
    "projections": products.projections,
    "few-rows": products.few_rows,
    "crossover": products.crossover,
    "first-call": training.first_call,
    "adapters": adapters.steps,
    "adapters-of-samples": adapters.samples,
}
# What is to be shown, as peer's time over ours: the rows by how they begin, the peer, and at least how much.
BARS = [
    ("product ", "cuBLAS", 0.97),
    ("MLP 8B", "compile", 1.05),
    ("MLP 1B", "compile", 1.12),
    ("projections 8B", "compile", 1.05),
    ("projections 1B", "compile", 1.12),
    ("head ", "compile", 1.15),
    ("head ", "Liger", 1.15),
    ("head ", "CCE", 1.15),
    ("LoRA r=16", "peft + compile", 1.25),
    ("LoRA r=16", "peft + Liger", 1.2),
    ("LoRA r=16", "peft", 1.6),
    ("LoRA r=64", "peft + compile", 1.25),
    ("QLoRA r=16", "peft + bitsandbytes", 1.6),
    ("QLoRA r=16", "peft + torchao NF4", 1.6),
    ("attention ", "FlexAttention, mask made", 1.3),
    ("attention ", "SDPA, mask made", 3.0),
    ("int4 1×", "gemlite", 1.0),
    ("int4 1×", "torchao", 1.0),
]


def ratios(rows: dict[str, Any], start: str, peer: str) -> list[float]:
    """Peer over ours in every row that has both; of steps, which have a row for each model, the two rows' times."""
    found = []
    steps = {name.split(": ", 1)[1]: row for name, row in rows.items() if name.startswith(f"{start}: ") and "ms" in row}
    base = next((name for name in ("ours", "ours, NF4") if name in steps), None)
    ours = steps[base]["ms"][base] if base else None
    if steps:
        return [steps[peer]["ms"][peer] / ours] if peer in steps and ours else []
    for name, row in rows.items():
        ms = row.get("ms", {})
        if name.startswith(start) and "ours" in ms and peer in ms:
            found.append(ms[peer] / ms["ours"])
    return found


def table(rows: dict[str, Any]) -> list[str]:
    lines = ["| rows | peer over ours, geometric mean | least | bar |", "|---|---|---|---|"]
    for start, peer, bar in BARS:
        found = ratios(rows, start, peer)
        if found:
            mean = math.exp(sum(map(math.log, found)) / len(found))
            lines.append(f"| {start.strip()}…, {peer} | {mean:.3f} | {min(found):.3f} | {bar} |")
        else:
            lines.append(f"| {start.strip()}…, {peer} | not measured | | {bar} |")
    copy = rows.get("copy")
    if copy is not None:
        rate = copy["bytes"] / copy["ms"]["copy"] / 1e9
        for name, row in rows.items():
            if name.startswith("int4 1×") and "ours" in row["ms"]:
                share = row["bytes"] / row["ms"]["ours"] / 1e9 / rate
                lines.append(f"| {name}, of the copy's {rate:.2f} TB/s | {share:.0%} | | 80 % |")
    return lines


def plot(rows: dict[str, Any], path: Path) -> None:
    """Bars of peer over ours, one for each row and peer, as SVG."""
    bars = [
        (f"{name}: {peer}", ms[peer] / ms["ours"])
        for name, row in rows.items()
        if "ours" in (ms := row.get("ms", {}))
        for peer in ms
        if peer != "ours"
    ]
    height, longest = 18, max((value for _, value in bars), default=1.0)
    scale = 400 / max(longest, 1.0)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="900" height="{height * (len(bars) + 2)}" font-size="11">']
    for index, (name, value) in enumerate(bars):
        y = height * (index + 1)
        parts.append(
            f'<text x="400" y="{y + 12}" text-anchor="end">{name.replace("&", "&amp;").replace("<", "&lt;")}</text>'
        )
        parts.append(f'<rect x="410" y="{y + 2}" width="{value * scale:.1f}" height="12" fill="#4a7ab5"/>')
        parts.append(f'<text x="{415 + value * scale:.1f}" y="{y + 12}">{value:.2f}×</text>')
    parts.append(f'<path d="M{410 + scale:.1f} 0V{height * (len(bars) + 2)}" stroke="#999"/></svg>')
    path.write_text("\n".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be given again")
    parser.add_argument("--budget-s", type=float, default=540.0, help="no row is started after so many seconds")
    parser.add_argument("--mode", default="max-autotune-no-cudagraphs", help="of torch.compile")
    parser.add_argument(
        "--tokens", type=int, action="append", help="of MLP and projections; default 2048, 8192 and 16384"
    )
    parser.add_argument("--rank", type=int, action="append", help="of the LoRA steps; default 16 and 64")
    parser.add_argument(
        "--without", action="append", default=[], help="no peer whose name has this; may be given again"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes on the CPU; measures nothing")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("there is no CUDA GPU; --tiny runs the parts on the CPU without measuring")
    if options.tiny:
        torch.set_num_threads(1)
    bench = Bench(options.out, time.monotonic() + options.budget_s, options.tiny, options.mode)
    bench.without = tuple(options.without)
    if options.tokens:
        bench.tokens = tuple(options.tokens)
    if options.rank:
        bench.ranks = tuple(options.rank)
    if options.out.exists():
        before = json.loads(options.out.read_text())
        bench.rows, bench.missing = before["rows"], before["missing"]
    for name in options.part or PARTS:
        try:
            PARTS[name](bench)
        except BudgetSpentError as row:
            print(f"the budget is spent before: {row}; run again to go on", flush=True)
            break
        except Exception as error:  # one part must not cost the others their time
            if options.tiny:
                raise
            bench.keep(f"part {name}", {"errors": {name: f"{type(error).__name__}: {error}"[:500]}})
        if not options.tiny:
            torch.cuda.empty_cache()
    bench.save()
    if options.tiny:
        print("tiny sizes on a CPU: what follows shows only that table and plot are made")
    print("\n".join(table(bench.rows)))
    plot(bench.rows, options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
