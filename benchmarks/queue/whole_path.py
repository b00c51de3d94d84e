"""From upload to score: how many submissions a site takes in, queues, claims and scores in a second.

    python benchmarks/queue/whole_path.py --uploads 5000
    python benchmarks/queue/whole_path.py --uploads 5000 --waiting 83000

A private site as in production, with PostgreSQL that syncs its commits, Redis, one web process, the maintenance worker
and workers whose evaluations take no time. Participants send tiny archives, each with a content of its own, to the
API's upload endpoint; somebody reads pages meanwhile. With --waiting the queue holds that many runs before. Printed:
the rates, the slowest claim, the pages' 95th percentile, the CPU time of each part for one submission, and whether
every submission is there once with its run, and every run that has ended has one verdict and all its results.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scale import PARTICIPANTS, queue_in_bulk, submissions
from system import HERE, Part, System, running_system

SETTINGS = {
    "TILTYARD_PRODUCTION": "1",
    "TILTYARD_SECRET_KEY": "a key of the benchmark alone, forty characters",
    "TILTYARD_LOG_LEVEL": "WARNING",
    "TILTYARD_CHANGES_RATE": "",
    "STUB_SUITE_S": "0",
}
WARM_UP = 20
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> int:
    options = _options()
    with running_system(workers=options.workers, settings=SETTINGS, is_durable=True) as system:
        claims = system.directory / "claims"
        claims.mkdir()
        for worker in system.workers:
            worker.environment["STUB_CLAIMS_DIR"] = str(claims)
        tokens = _prepare(system.directory, options.waiting)
        for part in system.parts[2:]:
            part.start()
        warm = _hand_in(system, tokens, range(WARM_UP), 60.0, options)
        _wait(WARM_UP, 120.0)  # so that every process has imported what it needs
        cpu_before_s = {part.name: _cpu_s(part) for part in system.parts}
        numbers = range(WARM_UP, WARM_UP + options.uploads)
        scored_before, began = _scored(), time.monotonic()
        sent = _hand_in(system, tokens, numbers, options.minutes * 60, options)
        uploaded_s = time.monotonic() - began
        if not options.waiting:
            _wait(WARM_UP + sent["answers"].get("201", 0), options.minutes * 60)
        seconds, scored = time.monotonic() - began, _scored() - scored_before
        cpu_s = {part.name: _cpu_s(part) - cpu_before_s[part.name] for part in system.parts}
        for part in [system.web, *system.workers, system.maintenance]:
            part.ask_to_stop(30)
        refused = dict(sent["answers"])
        accepted = refused.pop("201", 0)
        handed_in = options.waiting + warm["answers"].get("201", 0) + accepted
        problems = _problems(handed_in, all_scored=not options.waiting)
        problems += [f"{count} uploads were answered {status}" for status, count in refused.items()]
        report = {
            "waiting_before": options.waiting,
            "uploads": {"accepted": accepted, "per_s": round(accepted / uploaded_s, 1)},
            "upload_ms": _quantiles(sent["times_s"]),
            "scored": {"runs": scored, "seconds": round(seconds, 1), "per_s": round(scored / seconds, 1)},
            "claim_ms": _quantiles([float(ms) / 1000 for file in claims.iterdir() for ms in file.read_text().split()]),
            "page_ms": {page: _quantiles(times) for page, times in sent["pages"].items()},
            "cpu_s": {name: round(value, 1) for name, value in cpu_s.items()},
            "cpu_ms_for_each_scored": round(1000 * sum(cpu_s.values()) / max(scored, 1), 1),
            "problems": problems,
        }
        print(json.dumps(report, indent=2))
        if problems:
            print(system.logs(), file=sys.stderr)
    return 1 if problems else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--uploads", type=int, default=2000, help="at most")
    parser.add_argument("--waiting", type=int, default=0, help="runs that are queued before; then nobody drains them")
    parser.add_argument("--minutes", type=float, default=5.0, help="for the uploads, and again for the rest")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=3, help="uploads at once")
    parser.add_argument("--pages", type=float, default=1.0, help="pages read a second")
    return parser.parse_args()


def _prepare(directory: Path, waiting: int) -> Path:
    """A file of the participants' tokens, and the runs that wait."""
    from django.core.management import call_command  # noqa: PLC0415 - the settings are read now

    from tiltyard.accounts.models import ApiToken, User  # noqa: PLC0415

    call_command("collectstatic", verbosity=0, interactive=False)
    if waiting:
        queue_in_bulk(submissions(waiting))
    missing = PARTICIPANTS - User.objects.count()
    User.objects.bulk_create([User(username=f"q{n}", email=f"q{n}@example.org") for n in range(missing)])
    file = directory / "tokens"
    file.write_text("\n".join(ApiToken.issue(person, "benchmark")[1] for person in User.objects.all()))
    return file


def _hand_in(
    system: System, tokens: Path, numbers: range, seconds: float, options: argparse.Namespace
) -> dict[str, Any]:
    address = f"http://127.0.0.1:{system.web_port}"
    figures = (numbers.start, len(numbers), seconds, options.threads, options.pages)
    command = [sys.executable, str(HERE / "uploader.py"), address, str(tokens), *map(str, figures)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    sent: dict[str, Any] = json.loads(done.stdout)
    return sent


def _scored() -> int:
    from tiltyard.submissions.models import Run  # noqa: PLC0415
    from tiltyard.submissions.states import RunState  # noqa: PLC0415

    return Run.objects.filter(state=RunState.SCORED).count()


def _wait(runs: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while _scored() < runs and time.monotonic() < deadline:
        time.sleep(0.5)


def _problems(submissions: int, *, all_scored: bool) -> list[str]:
    from django.db.models import Count  # noqa: PLC0415

    from tiltyard.submissions.models import Run, RunEvent, Submission, SuiteResult  # noqa: PLC0415
    from tiltyard.submissions.states import EventKind, RunState  # noqa: PLC0415

    by_state = dict(Run.objects.order_by().values_list("state").annotate(Count("pk")))
    scored = by_state.get(RunState.SCORED, 0)
    expected = {
        "submissions": (Submission.objects.count(), submissions),
        "runs": (Run.objects.values("submission").distinct().count(), submissions),
        "ended otherwise": (sum(by_state.get(state, 0) for state in (RunState.FAILED, RunState.CANCELLED)), 0),
        "verdicts": (RunEvent.objects.filter(kind=EventKind.VERDICT).values("run").distinct().count(), scored),
        "verdicts in all": (RunEvent.objects.filter(kind=EventKind.VERDICT).count(), scored),
        "results": (SuiteResult.objects.filter(run__state=RunState.SCORED).count(), 2 * scored),
        "results in all": (SuiteResult.objects.count(), 2 * scored),
    }
    if all_scored:
        expected["scored"] = (scored, submissions)
    return [f"{name}: {found}, not {wanted}" for name, (found, wanted) in expected.items() if found != wanted]


def _quantiles(times_s: list[float]) -> dict[str, float]:
    """In milliseconds."""
    if len(times_s) < 2:
        return {}
    cuts = statistics.quantiles(times_s, n=100, method="inclusive")
    named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "slowest": max(times_s)}
    return {name: round(1000 * value, 1) for name, value in named.items()}


def _cpu_s(part: Part) -> float:
    """Of a part's processes, and of those of their children that have ended."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, tail = path.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        stats[int(path.parent.name)] = tail.split()
    family, found = {part.pid}, True
    while found:
        found = {pid for pid, values in stats.items() if int(values[1]) in family} - family
        family |= found
    return sum(sum(map(int, stats[pid][11:15])) for pid in family if pid in stats) / TICKS_PER_S


if __name__ == "__main__":
    sys.exit(main())
