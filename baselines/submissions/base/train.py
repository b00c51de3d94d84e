"""There is nothing to train: this submission is the base model as it is.

    python baselines/submissions/base/train.py --base-model baselines/squire

checks that the base model loads and says how large it is. Copy ``../lora`` to start a submission of your own.
"""

import argparse
import logging
from pathlib import Path

from tiltyard_baselines.serve.loading import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the base model.")
    parser.add_argument("--base-model", type=Path, required=True, help="folder of the base model")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, _ = load_model(options.base_model, None, "cpu")
    logging.getLogger(__name__).info("%d parameters", sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    main()
