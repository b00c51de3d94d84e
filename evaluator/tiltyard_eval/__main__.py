"""Command line of the evaluator: ``python -m tiltyard_eval COMMAND``.

Exit status: 0 done, 2 the submission's fault (or, of the suite commands, wrong input), 3 ours or the command line's.
"""

import argparse
import sys
from typing import Any, NoReturn

from tiltyard_eval.commands import compare, contamination, power, report, run, suites, twins
from tiltyard_eval.errors import EXIT_OURS


class _Parser(argparse.ArgumentParser):
    """argparse leaves with 2, which here means that a submission is at fault."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_OURS, f"{self.prog}: error: {message}\n")


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and run the command; returns the exit status."""
    parser = _Parser(prog="python -m tiltyard_eval", description="Tiltyard's evaluator")
    subparsers: argparse._SubParsersAction[Any] = parser.add_subparsers(dest="command", required=True)
    run.add_commands(subparsers)
    report.add_commands(subparsers)
    compare.add_commands(subparsers)
    suites.add_commands(subparsers)
    contamination.add_commands(subparsers)
    power.add_commands(subparsers)
    twins.add_commands(subparsers)
    args = parser.parse_args(argv)
    return int(args.func(args))


if __name__ == "__main__":
    sys.exit(main())
