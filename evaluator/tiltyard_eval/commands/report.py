"""``report``: turn a folder of results into one HTML file."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tiltyard_eval.config import RESULT_FILE, SAMPLES_FILE
from tiltyard_eval.errors import EXIT_OURS

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(subparsers: "Subparsers") -> None:
    """Add ``report``; it sets ``func(args) -> int``."""
    report = subparsers.add_parser("report", help="write a result as one HTML file")
    report.add_argument("folder", type=Path, help="folder that `run --out` wrote")
    report.add_argument("--out", type=Path, required=True, help="HTML file to write")
    report.add_argument("--with-hidden", action="store_true", help="show the items of a hidden suite as well")
    report.set_defaults(func=report_command)


def report_command(args: argparse.Namespace) -> int:
    """Write the report; exit status 0, or 3 when the folder holds no valid result."""
    from tiltyard_eval.files import write_atomically  # noqa: PLC0415 - other commands start without it
    from tiltyard_eval.report import read_samples, render_report  # noqa: PLC0415
    from tiltyard_eval.results import load_result  # noqa: PLC0415

    try:
        result = load_result(args.folder / RESULT_FILE)
        page = render_report(result, read_samples(args.folder / SAMPLES_FILE), with_hidden=args.with_hidden)
        write_atomically(args.out, [page])
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {args.folder}: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_OURS
    return 0
