"""``compare``: two results on one suite, item by item."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltyard_eval.errors import EXIT_OURS

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[Any]


def add_commands(subparsers: "Subparsers") -> None:
    """Add ``compare``; it sets ``func(args) -> int``."""
    compare = subparsers.add_parser("compare", help="compare two results on one suite, item by item")
    compare.add_argument("a", type=Path, help="folder that `run --out` wrote: what is compared against")
    compare.add_argument("b", type=Path, help="folder of the other result")
    compare.add_argument("--names", nargs=2, metavar=("A", "B"), help="what to call them (default: the folders' names)")
    compare.add_argument("--out", type=Path, help="write an HTML report there as well")
    compare.add_argument("--with-hidden", action="store_true", help="show the items of a hidden suite in the report")
    compare.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    compare.set_defaults(func=compare_command)


def compare_command(args: argparse.Namespace) -> int:
    """Print the comparison; exit status 0, or 3 when the two cannot be compared."""
    from tiltyard_eval.comparison import compare_folders  # noqa: PLC0415 - imports NumPy and SciPy
    from tiltyard_eval.comparison_page import render_comparison  # noqa: PLC0415
    from tiltyard_eval.comparison_text import comparison_document, comparison_text  # noqa: PLC0415
    from tiltyard_eval.files import write_atomically  # noqa: PLC0415
    from tiltyard_eval.results_folder import names_of, result_folder  # noqa: PLC0415

    try:
        a, b = result_folder(args.a), result_folder(args.b)
        name_a, name_b = args.names or names_of(a, b)
        found = compare_folders(a, b)
        if args.out is not None:
            write_atomically(args.out, [render_comparison(found, name_a, name_b, with_hidden=args.with_hidden)])
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_OURS
    print(json.dumps(comparison_document(found), indent=2) if args.json else comparison_text(found, name_a, name_b))  # noqa: T201
    return 0
