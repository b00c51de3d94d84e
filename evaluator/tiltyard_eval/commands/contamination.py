"""``contamination``: does declared training data hold the questions of a suite?"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiltyard_eval.stats.contamination import Finding, Item, Report

    Subparsers = argparse._SubParsersAction[Any]

EXIT_TOO_MUCH = 1
EXIT_BAD_INPUT = 2
_SHOWN = 50


def add_commands(subparsers: "Subparsers") -> None:
    """Add ``contamination``; it sets ``func(args) -> int``."""
    scan = subparsers.add_parser("contamination", help="look for a suite's questions in training data")
    scan.add_argument("data", type=Path, nargs="+", help="files of JSON Lines, or of plain text")
    scan.add_argument("--suite", type=Path, required=True, help="folder of the suite")
    scan.add_argument("--words", type=int, default=8, help="length of the n-grams (default 8)")
    scan.add_argument("--overlap", type=float, default=0.7, help="share of n-grams that counts (default 0.7)")
    scan.add_argument("--jaccard", type=float, default=0.8, help="likeness that counts, 0.5 to 1 (default 0.8)")
    scan.add_argument("--max-share", type=float, help="leave with status 1 when more than this share of items is found")
    scan.add_argument("--show-open", action="store_true", help="print the questions found, if the suite is open")
    scan.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    scan.set_defaults(func=contamination_command)


def contamination_command(args: argparse.Namespace) -> int:
    """Print the findings; exit status 0, 1 above ``--max-share``, or 2 for wrong input."""
    from tiltyard_eval.stats.contamination import Item, Rules, ScanError, scan_files  # noqa: PLC0415 - NumPy
    from tiltyard_eval.suite import SuiteError, load_suite  # noqa: PLC0415

    try:
        suite = load_suite(args.suite)
        if args.show_open and suite.visibility != "open":
            raise ScanError("--show-open needs an open suite; of a hidden one nothing but numbers is ever printed")
        if args.max_share is not None and not 0.0 <= args.max_share <= 1.0:
            raise ScanError("--max-share is a share from 0 to 1")
        items = [Item(task.name, index, item.identity) for task in suite.tasks for index, item in enumerate(task.items)]
        rules = Rules(words=args.words, overlap=args.overlap, jaccard=args.jaccard)
        report = scan_files(items, args.data, rules)
    except (SuiteError, ScanError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command's own message
        return EXIT_BAD_INPUT
    shown = {(item.task, item.index): item for item in items} if args.show_open else {}
    print(json.dumps(_document(report, shown), indent=2) if args.json else _text(report, shown))  # noqa: T201
    return EXIT_TOO_MUCH if args.max_share is not None and report.share > args.max_share else 0


def _document(report: "Report", shown: "dict[tuple[str, int], Item]") -> dict[str, Any]:
    findings = []
    for finding in report.findings:
        item = shown.get((finding.task, finding.index))
        findings.append(asdict(finding) | ({} if item is None else {"text": item.text}))
    return {
        "items": report.items,
        "records": report.records,
        "not_json": report.not_json,
        "found": len(report.findings),
        "share": report.share,
        "by_task": report.by_task(),
        "findings": findings,
    }


def _text(report: "Report", shown: "dict[tuple[str, int], Item]") -> str:
    lines = [
        f"{len(report.findings)} of {report.items} items found ({report.share:.1%}) in {report.records} records"
        + (f", of which {report.not_json} were no JSON and were read as text" if report.not_json else "")
        + "."
    ]
    lines += [f"  {_safe(task):24} {count} items" for task, count in report.by_task().items()]
    lines += [_line(finding, shown.get((finding.task, finding.index))) for finding in report.findings[:_SHOWN]]
    if len(report.findings) > _SHOWN:
        lines.append(f"… and {len(report.findings) - _SHOWN} more; --json has them all")
    return "\n".join(lines)


def _line(finding: "Finding", item: "Item | None") -> str:
    how = ["whole"] if finding.contained else []
    if finding.overlap and not finding.contained:
        how.append(f"{finding.overlap:.0%} of its n-grams")
    if finding.jaccard:
        how.append(f"Jaccard {finding.jaccard:.2f}")
    where = ", ".join(_safe(place) for place in finding.places)
    more = ", …" if finding.records > len(finding.places) else ""
    line = f"{_safe(finding.task)} {finding.index}: {', '.join(how)}; {finding.records} records: {where}{more}"
    return line if item is None else f"{line}\n    {_safe(item.text)}"


def _safe(text: str) -> str:
    """Text from files for a terminal: control characters written out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
