"""Train this submission's adapter, over a base in NF4, on fresh questions of the open suite's kind.

    python -m tiltyard_eval generate --mix baselines/submissions/lora/mix.yaml \
        --exclude competitions/demo/suites/open --seed 7 --count 170000 --out var/fresh.jsonl
    python baselines/submissions/qlora/train.py --data var/fresh.jsonl --base-model baselines/squire
"""

import argparse
import logging
from pathlib import Path

import torch

from tiltyard_baselines.data import read_items
from tiltyard_baselines.lora import AdapterConfig, train_adapter

CONFIG = AdapterConfig(rank=32, epochs=1.0, learning_rate=3e-3, decay_fraction=0.9, base="nf4")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the adapter of the qlora submission.")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="JSON Lines of training items")
    parser.add_argument("--base-model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "adapter")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    train_adapter(options.base_model, read_items(options.data), options.out, CONFIG, seed=options.seed)


if __name__ == "__main__":
    main()
