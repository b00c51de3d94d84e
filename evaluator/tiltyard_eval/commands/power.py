"""``power``: how close two entries may be before a suite cannot tell them apart."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiltyard_eval.stats import Stratum
    from tiltyard_eval.suite import Suite

    Subparsers = argparse._SubParsersAction[Any]

EXIT_BAD_INPUT = 2
_DISCORDANCES = (0.1, 0.2, 0.3, 0.5)


def add_commands(subparsers: "Subparsers") -> None:
    """Add ``power``; it sets ``func(args) -> int``."""
    power = subparsers.add_parser("power", help="the smallest difference between entries that a suite can find")
    power.add_argument("--suite", type=Path, required=True, help="folder of the suite")
    power.add_argument(
        "--result",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of a run; measure on two or more",
    )
    power.add_argument("--level", type=float, default=0.05, help="of the two-sided test (default 0.05)")
    power.add_argument("--power", type=float, default=0.8, help="probability of finding it (default 0.8)")
    power.add_argument(
        "--cluster-by",
        metavar="FIELD",
        help="field of the items that names their template (default: the skeleton, where items share one)",
    )
    power.add_argument(
        "--icc", type=float, default=1.0, help="how much a cluster's items repeat each other, 0..1 (default 1)"
    )
    power.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    power.set_defaults(func=power_command)


def power_command(args: argparse.Namespace) -> int:
    """Print the differences; exit status 0, or 2 for wrong input."""
    from tiltyard_eval.suite import load_suite  # noqa: PLC0415 - so that other commands start without it

    try:
        suite = load_suite(args.suite)
        if empty := [task.name for task in suite.tasks if not task.items]:
            raise ValueError(f"the suite's folder holds no items of {', '.join(empty)}")
        document = _document(suite, args)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command's own message
        return EXIT_BAD_INPUT
    print(json.dumps(document, indent=2) if args.json else _text(document))  # noqa: T201
    return 0


def _document(suite: "Suite", args: argparse.Namespace) -> dict[str, Any]:
    from tiltyard_eval.stats.power import TaskSize, planned_difference  # noqa: PLC0415 - NumPy and SciPy

    sizes = [
        TaskSize(len(task.items), task.weight, None if labels is None else len(set(labels)))
        for task, labels in zip(suite.tasks, _clusters(suite, args.cluster_by), strict=True)
    ]
    planned = {
        discordance: planned_difference(
            sizes, discordance=discordance, intraclass_correlation=args.icc, level=args.level, power=args.power
        )
        for discordance in _DISCORDANCES
    }
    return {
        "suite": suite.name,
        "items": suite.item_count,
        "tasks": len(sizes),
        "clusters": sum(size.clusters or size.items for size in sizes),
        "level": args.level,
        "power": args.power,
        "planned": [{"discordance": share, "difference": difference} for share, difference in planned.items()],
        "measured": _measured(suite, args) if args.result else None,
    }


def _clusters(suite: "Suite", name: str | None) -> list[list[str] | None]:
    """For each task the label of each item's cluster, by default that of its skeleton; None where all differ."""
    if name is None:
        return [task.clusters() for task in suite.tasks]
    labels = [[item.extra.get(name) for item in task.items] for task in suite.tasks]
    if any(label is None for task in labels for label in task):
        raise ValueError(f"not every item has the field {name!r}")
    return [[json.dumps(label, sort_keys=True) for label in task] for task in labels]


def _measured(suite: "Suite", args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415

    from tiltyard_eval.stats import stack  # noqa: PLC0415
    from tiltyard_eval.stats.power import measured_differences  # noqa: PLC0415

    clusters = _clusters(suite, args.cluster_by)
    entries = [_strata(suite, folder, clusters) for folder in args.result]
    found = measured_differences(stack(entries), level=args.level, power=args.power)
    return {
        "results": len(entries),
        "pairs": len(found),
        "smallest": float(found.min()),
        "median": float(np.median(found)),
        "largest": float(found.max()),
    }


def _strata(suite: "Suite", folder: Path, clusters: Sequence[Sequence[str] | None]) -> "list[Stratum]":
    """The item scores of one run; raises ValueError unless it is a scored run on this very suite."""
    from tiltyard_eval.config import RESULT_FILE, SAMPLES_FILE  # noqa: PLC0415
    from tiltyard_eval.report import read_samples  # noqa: PLC0415
    from tiltyard_eval.results import load_result  # noqa: PLC0415
    from tiltyard_eval.stats import Stratum  # noqa: PLC0415

    result = load_result(folder / RESULT_FILE)
    if result.suite is None or result.suite.sha256 != suite.sha256 or result.status != "scored":
        raise ValueError(f"{folder.name} is not a scored run on this suite")
    try:
        rows = read_samples(folder / SAMPLES_FILE)
        scores = {(str(row["task"]), int(row["index"])): float(row["score"]) for row in rows}
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{folder.name}: a sample lacks its task, index or score") from error
    if scores.keys() != {(task.name, index) for task in suite.tasks for index in range(len(task.items))}:
        raise ValueError(f"{folder.name} does not have a score for every item of the suite")
    return [
        Stratum([scores[task.name, index] for index in range(len(task.items))], task.weight, labels)
        for task, labels in zip(suite.tasks, clusters, strict=True)
    ]


def _text(document: dict[str, Any]) -> str:
    worst = document["planned"][-1]["difference"]
    lines = [
        f"{document['suite']}: {document['items']} items in {document['tasks']} tasks"
        + (f", {document['clusters']} clusters" if document["clusters"] < document["items"] else ""),
        f"At level {document['level']:g} and with power {document['power']:g} it cannot separate entries which",
    ]
    lines += [
        f"  differ on {row['discordance']:>4.0%} of the items and lie closer than {100 * row['difference']:5.1f} points"
        for row in document["planned"]
    ]
    measured = document["measured"]
    if measured is None:
        lines.append(f"This suite cannot be relied on to separate entries closer than {100 * worst:.1f} points.")
    else:
        lines.append(
            f"Measured on {measured['pairs']} pairs of {measured['results']} results: this suite cannot separate"
            f" entries closer than {100 * measured['median']:.1f} points (median; {100 * measured['smallest']:.1f} to"
            f" {100 * measured['largest']:.1f})."
        )
    return "\n".join(lines)
