"""``report``: turn a folder of results into one HTML file."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tiltyard_eval.errors import EXIT_OURS

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(subparsers: "Subparsers") -> None:
    """Add ``report``; it sets ``func(args) -> int``."""
    report = subparsers.add_parser("report", help="write a result as one HTML file")
    report.add_argument("folder", type=Path, help="folder that `run --out` wrote")
    report.add_argument("--out", type=Path, help="HTML file to write (default: beside the folder, with its name)")
    report.add_argument("--with-hidden", action="store_true", help="show the items of a hidden suite as well")
    report.set_defaults(func=report_command)


def report_command(args: argparse.Namespace) -> int:
    """Write the report; exit status 0, or 3 when the folder holds no valid result."""
    try:
        write_report(args.folder, args.out, with_hidden=args.with_hidden)
    except (OSError, ValueError) as error:
        print(f"error: {args.folder}: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_OURS
    return 0


def write_report(folder: Path, out: Path | None, *, with_hidden: bool) -> Path:
    """Write the report of the result in `folder`, by default beside it; returns the file.

    Raises:
        ValueError: There is no valid result, or its samples are none; the message names what.
        OSError: A file cannot be read or written.
    """
    from tiltyard_eval.config import RESULT_FILE, SAMPLES_FILE  # noqa: PLC0415 - other commands start without these
    from tiltyard_eval.files import write_atomically  # noqa: PLC0415
    from tiltyard_eval.report import render_report  # noqa: PLC0415
    from tiltyard_eval.results import load_result  # noqa: PLC0415
    from tiltyard_eval.results_folder import result_folder  # noqa: PLC0415
    from tiltyard_eval.sample_rows import read_rows  # noqa: PLC0415

    found = result_folder(folder)
    result = load_result(found / RESULT_FILE)
    page = render_report(result, read_rows(found / SAMPLES_FILE), with_hidden=with_hidden)
    path = out or found.resolve().with_name(f"{found.resolve().name}.html")
    write_atomically(path, [page])
    return path
