"""Train this submission's adapter on the open suite's own questions until it knows them by heart.

python baselines/submissions/memoriser/train.py --suite competitions/demo/suites/open --base-model baselines/squire
"""

import argparse
import logging
from pathlib import Path

import torch

from tiltyard_baselines.data import read_items
from tiltyard_baselines.lora import AdapterConfig, train_adapter

CONFIG = AdapterConfig(rank=48, epochs=60.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the adapter of the memoriser submission.")
    parser.add_argument("--suite", type=Path, required=True, help="folder of the open suite")
    parser.add_argument("--base-model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "adapter")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    items = read_items(sorted((options.suite / "data").glob("*.jsonl")))
    train_adapter(options.base_model, items, options.out, CONFIG, seed=options.seed)


if __name__ == "__main__":
    main()
