"""``twins``: what an entry loses when open questions come back in other words."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltyard_eval.errors import EXIT_OURS

if TYPE_CHECKING:
    from tiltyard_eval.twins import TwinGap

    Subparsers = argparse._SubParsersAction[Any]


def add_commands(subparsers: "Subparsers") -> None:
    """Add ``twins``; it sets ``func(args) -> int``."""
    twins = subparsers.add_parser("twins", help="what an entry loses when open questions come back in other words")
    twins.add_argument("open", type=Path, help="folder of its run on the open suite")
    twins.add_argument("hidden", type=Path, help="folder of its run on a hidden suite with twins of the open one")
    twins.add_argument(
        "--baseline",
        nargs=2,
        type=Path,
        action="append",
        default=[],
        metavar=("OPEN", "HIDDEN"),
        help="the same two folders of an honest entry, to hold the gap against; can be given several times",
    )
    twins.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    twins.set_defaults(func=twins_command)


def twins_command(args: argparse.Namespace) -> int:
    """Print the twin gap; exit status 0, or 3 when there is none to compute."""
    from tiltyard_eval.twins import twin_gap_of_folders  # noqa: PLC0415 - imports NumPy and SciPy

    try:
        found = twin_gap_of_folders(args.open, args.hidden, baselines=[(one, other) for one, other in args.baseline])
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command's own message
        return EXIT_OURS
    print(json.dumps(asdict(found), indent=2) if args.json else _text(found, args))  # noqa: T201
    return 0


def _text(found: "TwinGap", args: argparse.Namespace) -> str:
    from tiltyard_eval.stats.gap import MARGIN  # noqa: PLC0415 - imports NumPy and SciPy

    lines = [f"{'task':24} {'pairs':>5} {'open':>7} {'hidden':>7}"]
    lines += [f"{task.name:24} {task.pairs:>5} {task.open:>7.1%} {task.hidden:>7.1%}" for task in found.tasks]
    lines.append(f"{'all, by weight':24} {found.pairs:>5} {found.open:>7.1%} {found.hidden:>7.1%}")
    gap = found.gap
    lines += [
        "",
        f"Twin gap {100 * gap.value:+.1f} points, 95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f}:"
        f" of {found.pairs} pairs, {found.lost} lost in other words and {found.gained} gained.",
    ]
    if found.excess is not None and found.nearest is not None:
        excess = found.excess
        name = args.baseline[found.nearest][1].name
        lines.append(
            f"That is {100 * excess.value:+.1f} points more ({100 * excess.low:+.1f} to {100 * excess.high:+.1f})"
            f" than the baseline {name} loses."
        )
    verdict = "Flagged: it knows the open questions' words" if found.flagged else "Not flagged"
    more = ", or at most so much more than some baseline's" if found.excess is not None else ""
    lines.append(f"{verdict} (p = {found.p_value:.2g}, of a loss of at most {100 * MARGIN:g} points{more}).")
    return "\n".join(lines)
