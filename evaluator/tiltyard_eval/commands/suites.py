"""``generate`` and ``suite …``: make training data and suites from generators, lock and verify suites."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tiltyard_eval.generators.core import GeneratorError
from tiltyard_eval.generators.mix import draw_mix, load_mix

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(subparsers: Subparsers) -> None:
    """Add ``generate`` and ``suite`` to the evaluator's command line; each sets ``func(args) -> int``."""
    generate = subparsers.add_parser("generate", help="write questions and answers as JSON Lines, for training")
    source = generate.add_mutually_exclusive_group(required=True)
    source.add_argument("--mix", type=Path, help="YAML mix of families, levels and surfaces")
    source.add_argument("--suite-recipe", type=Path, help="recipe of a suite; its tasks are the mix")
    generate.add_argument("--seed", type=int, required=True, help="non-negative integer; same seed, same bytes")
    generate.add_argument("--count", type=int, required=True, help="number of lines")
    generate.add_argument("--out", type=Path, required=True, help="file to write")
    generate.set_defaults(func=run_generate)


def run_generate(args: argparse.Namespace) -> int:
    """Write the items; exit status 0, or 2 when the request is wrong."""
    try:
        if args.seed < 0 or args.count < 1:
            raise GeneratorError("--seed must not be negative and --count must be at least 1")
        tasks = load_mix(args.mix)
        with args.out.open("w", encoding="ascii", newline="\n") as file:
            file.writelines(item.to_json() + "\n" for item in draw_mix(tasks, args.seed, args.count))
    except (GeneratorError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  the command's own message
        return 2
    return 0
