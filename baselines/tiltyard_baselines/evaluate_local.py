"""Quick exact-match accuracy of a model on JSON Lines of items, by task.

    python -m tiltyard_baselines.evaluate_local --model baselines/squire [--adapter DIR [--quantise nf4]] \
        --data suite/data/*.jsonl

Greedy, through the same engine as the server; the time it took goes to standard error. The official score is the
evaluator's; this one is for tuning.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tiltyard_baselines.data import Item, read_items
from tiltyard_baselines.serve.decoding import recorder_for
from tiltyard_baselines.serve.engine import MAX_WAITING_JOBS, Engine
from tiltyard_baselines.serve.jobs import GenerationJob
from tiltyard_baselines.serve.loading import DTYPES, QUANTISATIONS, load_model
from tiltyard_baselines.serve.runner import ModelRunner

MAX_ANSWER_TOKENS = 32


def answer_items(engine: Engine, items: Sequence[Item]) -> Iterator[str]:
    """Yield the greedy answer to each item, without surrounding spaces, in order."""
    for start in range(0, len(items), MAX_WAITING_JOBS):
        jobs = [
            GenerationJob(engine.runner.encode(item.prompt), MAX_ANSWER_TOKENS, stop=("\n",))
            for item in items[start : start + MAX_WAITING_JOBS]
        ]
        engine.submit(jobs)
        for job in jobs:
            yield job.done.result().text.strip()


def accuracy_by_task(engine: Engine, items: Sequence[Item]) -> dict[str, float]:
    """Return the share of exactly right answers, 0..1, for every task and for ``"all"`` items."""
    right: dict[str, list[bool]] = defaultdict(list)
    for item, answer in zip(items, answer_items(engine, items), strict=True):
        right[item.task].append(answer == item.answer)
        right["all"].append(answer == item.answer)
    return {task: sum(outcomes) / len(outcomes) for task, outcomes in sorted(right.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description="Exact-match accuracy by task, as JSON on standard output.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--quantise", choices=QUANTISATIONS, help="as the server's")
    parser.add_argument("--kernels", action=argparse.BooleanOptionalAction, help="as the server's")
    parser.add_argument("--graphs", action=argparse.BooleanOptionalAction, default=True, help="as the server's")
    parser.add_argument("--dtype", choices=DTYPES, help="as the server's")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load_model(
        options.model,
        options.adapter,
        options.device,
        options.dtype,
        quantise=options.quantise,
        on_kernels=options.kernels,
    )
    record = recorder_for(options.device) if options.graphs else None
    engine = Engine(ModelRunner(model, tokenizer, slots=64, max_context_tokens=2048, record=record))
    items = read_items(options.data)
    list(answer_items(engine, items[:1]))  # what only the first pass costs is not timed
    started = time.monotonic()
    report = accuracy_by_task(engine, items)
    elapsed_s = time.monotonic() - started
    sys.stderr.write(f"{len(items)} items in {elapsed_s:.1f} s: {len(items) / elapsed_s:.1f} a second\n")
    json.dump({task: round(accuracy, 4) for task, accuracy in report.items()}, sys.stdout, indent=1)
    sys.stdout.write("\n")
    engine.stop()


if __name__ == "__main__":
    main()
