"""How long a queue of many submissions takes, and the slowest claim on the way.

    python benchmarks/queue/scale.py --runs 83000 --minutes 120
    python benchmarks/queue/scale.py --runs 83000 --bulk --stop-after 5000

A private site with PostgreSQL and Redis. The submissions are put into the database at once; then every run goes the
real way: its turn is computed, its message published, and two workers claim it, bring it through every state and store
its scores, with an evaluation that takes no time. Printed: the rate, how long claims take while tens of thousands wait,
and how many runs were lost. With `--bulk` the runs are queued by one statement, and the outbox sends their messages;
with `--stop-after` only the first ones are worked off, which tells of claims from the fullest queue.
"""

import argparse
import json
import statistics
import sys
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from system import running_system

PARTICIPANTS = 2000
BATCH = 2000
SETTINGS = {"TILTYARD_LOG_LEVEL": "WARNING", "STUB_SUITE_S": "0", "TILTYARD_QUEUE_REPUBLISH_S": "600"}


def main() -> int:
    options = _options()
    with running_system(workers=options.workers, settings=SETTINGS) as system:
        times = system.directory / "claims"
        times.mkdir()
        for part in [system.maintenance, *system.workers]:
            part.environment["STUB_CLAIMS_DIR"] = str(times)
        waiting = submissions(options.runs)
        queued_s = (queue_in_bulk if options.bulk else _queue)(waiting)
        began = time.monotonic()
        for part in [system.maintenance, *system.workers]:
            part.start()
        wanted = min(options.stop_after or options.runs, options.runs)
        done = _wait(wanted, options.minutes * 60)
        seconds = time.monotonic() - began
        print(json.dumps(_report(options.runs, done, queued_s, seconds, times), indent=2))
        if done < wanted:
            print(system.logs(), file=sys.stderr)
    return 0 if done >= wanted else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=8300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--bulk", action="store_true", help="queue by one statement instead of one by one")
    parser.add_argument("--stop-after", type=int, help="how many runs to work off; all of them by default")
    return parser.parse_args()


def submissions(count: int) -> list[Any]:
    """Rows as uploads leave them; every participant has handed in as many as the others."""
    from django.utils import timezone  # noqa: PLC0415 - the settings are read now

    from tiltyard.accounts.models import User  # noqa: PLC0415
    from tiltyard.competitions.models import Competition  # noqa: PLC0415
    from tiltyard.submissions.models import Artefact, Submission  # noqa: PLC0415

    competition = Competition.objects.get()
    track, phase = competition.tracks.get(), competition.phases.get()
    people = User.objects.bulk_create(
        [User(username=f"p{n}", email=f"p{n}@example.org") for n in range(min(PARTICIPANTS, count))]
    )
    artefact = Artefact.objects.create(sha256=uuid.uuid4().hex * 2, kind="docker_context", size_bytes=1)
    artefact.path.parent.mkdir(parents=True, exist_ok=True)
    artefact.path.touch()
    now = timezone.now()
    return Submission.objects.bulk_create(
        [
            Submission(
                competition=competition,
                track=track,
                phase=phase,
                owner=people[n % len(people)],
                artefact=artefact,
                name=f"entry-{n}",
                original_filename="entry.tar.gz",
                created_at=now - timedelta(microseconds=count - n),
            )
            for n in range(count)
        ],
        batch_size=BATCH,
    )


def _queue(submissions: list[Any]) -> float:
    """Queue a run of each, as an accepted upload does; the seconds it took."""
    from django.db import transaction  # noqa: PLC0415
    from django.utils import timezone  # noqa: PLC0415

    from tiltyard.submissions.intake import queue_run  # noqa: PLC0415

    began = time.monotonic()
    for submission in submissions:
        with transaction.atomic():
            queue_run(submission, timezone.now())
    return time.monotonic() - began


def queue_in_bulk(submissions: list[Any]) -> float:
    """The same rows at once; nothing is published."""
    from tiltyard.submissions.models import Run, RunEvent  # noqa: PLC0415
    from tiltyard.submissions.states import EventKind, RunState  # noqa: PLC0415

    began = time.monotonic()
    runs = [
        Run(submission=one, queue=one.track.queue, turn=n // PARTICIPANTS, queued_at=one.created_at)
        for n, one in enumerate(submissions)
    ]
    Run.objects.bulk_create(runs, batch_size=BATCH)
    events = [RunEvent(run=run, attempt=0, kind=EventKind.QUEUED, state=RunState.QUEUED, message="") for run in runs]
    RunEvent.objects.bulk_create(events, batch_size=BATCH)
    return time.monotonic() - began


def _wait(runs: int, timeout_s: float) -> int:
    from tiltyard.submissions.models import Run  # noqa: PLC0415
    from tiltyard.submissions.states import FINAL  # noqa: PLC0415

    deadline = time.monotonic() + timeout_s
    done = 0
    while done < runs and time.monotonic() < deadline:
        time.sleep(2)
        done = Run.objects.filter(state__in=FINAL).count()
    return done


def _report(runs: int, done: int, queued_s: float, seconds: float, times: Path) -> dict[str, Any]:
    from tiltyard.submissions.models import Run, RunEvent, SuiteResult  # noqa: PLC0415
    from tiltyard.submissions.states import EventKind, RunState  # noqa: PLC0415

    claims_ms = sorted(float(line) for path in times.iterdir() for line in path.read_text().split())
    cuts = statistics.quantiles(claims_ms, n=100)
    return {
        "runs": runs,
        "ended": done,
        "scored": Run.objects.filter(state=RunState.SCORED).count(),
        "verdicts": RunEvent.objects.filter(kind=EventKind.VERDICT).count(),
        "results": SuiteResult.objects.count(),
        "most_attempts": Run.objects.order_by("-attempt").values_list("attempt", flat=True)[0],
        "queueing_s": round(queued_s, 1),
        "queued_per_s": round(runs / queued_s, 1),
        "working_s": round(seconds, 1),
        "scored_per_s": round(done / seconds, 1),
        "claims": len(claims_ms),
        "claim_ms": {"p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "p99": round(cuts[98], 1)},
        "slowest_claim_ms": round(claims_ms[-1], 1),
    }


if __name__ == "__main__":
    sys.exit(main())
