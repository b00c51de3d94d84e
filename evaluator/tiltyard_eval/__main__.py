"""Command line of the evaluator: ``python -m tiltyard_eval COMMAND``."""

from __future__ import annotations

import argparse
import sys

from tiltyard_eval.commands import suites


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tiltyard_eval", description="Tiltyard's evaluator")
    subparsers = parser.add_subparsers(dest="command", required=True)
    suites.add_commands(subparsers)
    args = parser.parse_args(argv)
    return int(args.func(args))


if __name__ == "__main__":
    sys.exit(main())
