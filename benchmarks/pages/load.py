"""How long the pages take on a large site, asked 50 times a second.

    python scripts/services.py run --redis --postgres -- .venv/bin/python benchmarks/pages/load.py

Fills an empty PostgreSQL (see fill.py), computes the boards' statistics, starts the production web stack (gunicorn
with uvicorn workers, production's settings, the shared cache in Redis) with the periodic jobs beside it, then asks
for boards, competitions and runs at a fixed rate, whether or not earlier answers have come. Every SCORE_EVERY_S
seconds a run on the largest board is scored, so what is kept of it is thrown away again and again. A time is from
sending a request over loopback to the answer's last byte: it contains the server's time and that of this program,
which shares the machine.
"""

import argparse
import asyncio
import collections
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "benchmarks" / "queue"), str(Path(__file__).parent)]

from services import free_port  # noqa: E402  from scripts/

SCORE_EVERY_S = 10.0  # 8,640 a day, eight times what the largest site is known to have
HEADERS = {"Host": "tiltyard.example.org", "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
SIGNED_IN = 0.3  # of the requests
WARM_S = 45.0  # before the clock runs: every process makes the fifty boards once, which it then keeps


def main() -> int:
    options = _options()
    url = os.environ.get("TILTYARD_DATABASE_URL") or os.environ["TILTYARD_TEST_POSTGRES_URL"]
    with tempfile.TemporaryDirectory(prefix="tiltyard-pages-") as name:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "tiltyard.settings",
            "TILTYARD_PRODUCTION": "1",
            "TILTYARD_SECRET_KEY": secrets.token_urlsafe(48),
            "TILTYARD_SITE_URL": "https://tiltyard.example.org",
            "TILTYARD_ALLOWED_HOSTS": "tiltyard.example.org,testserver",
            "TILTYARD_DATABASE_URL": url,
            "TILTYARD_DATA_DIR": name,
            "TILTYARD_LOG_LEVEL": "WARNING",
        }
        filled_s = _prepare(options)
        with _web_server(options.web_workers) as (port, server_pid), _beside(options):
            targets = _targets(options.seed)
            asyncio.run(_ask(port, targets, rate=options.rate / 2, seconds=WARM_S, seed=0))
            reports, cpu_ms = {}, {}
            for kind in [*options.only] or ["mixed"]:
                chosen = targets if kind == "mixed" else {kind: targets[kind]}
                before_s = _cpu_s(server_pid)
                asked = asyncio.run(_ask(port, chosen, rate=options.rate, seconds=options.seconds, seed=options.seed))
                cpu_ms[kind] = round(1000 * (_cpu_s(server_pid) - before_s) / round(options.rate * options.seconds), 1)
                reports[kind] = _report(asked)
        figures = {"filled_s": filled_s, **_sizes(), "rate": options.rate, "load_average": os.getloadavg()[0]}
        print(json.dumps(figures | {"web_cpu_ms_a_request": cpu_ms, "times_ms": reports}, indent=2))
    slowest = max(one["p95"] for report in reports.values() for one in report.values())
    failed = sum(one["not_200"] for report in reports.values() for one in report.values())
    return 0 if slowest <= options.aim_ms and not failed else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--submissions", type=int, default=100_000)
    parser.add_argument("--participants", type=int, default=2000)
    parser.add_argument("--competitions", type=int, default=50)
    parser.add_argument("--filled", action="store_true", help="the database is full already")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second, of all kinds together")
    parser.add_argument("--no-jobs", action="store_true", help="without the periodic jobs beside it")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--web-workers", type=int, default=2, help="as in docker-compose.yml")
    parser.add_argument("--aim-ms", type=float, default=50.0, help="exit status 1 when a p95 is above")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("only", nargs="*", choices=["mixed", "board", "competition", "run", "home", []], default=[])
    return parser.parse_args()


def _prepare(options: argparse.Namespace) -> float:
    """The seconds that filling took, the first statistics of every board included."""
    import django  # noqa: PLC0415 - the settings are read now

    django.setup()
    from django.core.management import call_command  # noqa: PLC0415

    call_command("collectstatic", interactive=False, verbosity=0)
    call_command("migrate", verbosity=0)
    if options.filled:
        return 0.0
    from django.utils import timezone  # noqa: PLC0415
    from fill import fill  # noqa: PLC0415

    from tiltyard.leaderboards.refresh import refresh_all  # noqa: PLC0415

    began = time.monotonic()
    fill(competitions=options.competitions, participants=options.participants, submissions=options.submissions)
    refresh_all(timezone.now())
    return round(time.monotonic() - began, 1)


def _cpu_s(parent: int) -> float:
    """What the web server's processes have used so far."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _web_server(workers: int) -> Iterator[tuple[int, int]]:
    """Port and process id of the real stack, with the command of docker-compose.yml."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "tiltyard.asgi:application", "-k", "uvicorn_worker.UvicornWorker"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", str(workers), "--timeout", "120"]
    command += ["--log-level", "warning"]
    with subprocess.Popen(command) as server:
        try:
            deadline = time.monotonic() + 180
            while not _answers(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("The web server did not get ready.")
                time.sleep(0.2)
            yield port, server.pid
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz", headers=HEADERS)
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def _beside(options: argparse.Namespace) -> Iterator[None]:
    """What goes on meanwhile: scores come in, and the periodic jobs run, the boards' statistics among them."""
    celery = [sys.executable, "-m", "celery", "-A", "tiltyard", "worker", "-B", "-Q", "maintenance", "-c", "1"]
    celery += ["--schedule", f"{os.environ['TILTYARD_DATA_DIR']}/beat", "--loglevel", "warning", "-n", "jobs@pages"]
    # A process of its own, as workers are: in this one it would hold up the clock.
    scorer = multiprocessing.get_context("spawn").Process(target=_score_now_and_then, args=(options.seed,), daemon=True)
    with subprocess.Popen(["true"] if options.no_jobs else celery) as jobs:
        scorer.start()
        try:
            yield
        finally:
            scorer.terminate()
            scorer.join()
            jobs.terminate()


def _score_now_and_then(seed: int) -> None:
    import django  # noqa: PLC0415 - the settings are read now

    django.setup()
    chance = random.Random(seed)  # noqa: S311  not for secrets
    while True:
        time.sleep(SCORE_EVERY_S)
        _score_one(chance)


def _score_one(chance: random.Random) -> None:
    """Hand in an entry to the largest competition and end its run as a worker does."""
    from django.utils import timezone  # noqa: PLC0415
    from stub import _result  # noqa: PLC0415  the played evaluation

    from tiltyard.competitions.models import Competition  # noqa: PLC0415
    from tiltyard.evaluation import SampleRow  # noqa: PLC0415
    from tiltyard.submissions.models import Run, Submission  # noqa: PLC0415
    from tiltyard.submissions.states import RunState  # noqa: PLC0415
    from tiltyard.worker.recording import ScoredSuite, record_scores  # noqa: PLC0415

    now = timezone.now()
    competition = Competition.objects.get(slug="round-0")
    like = Submission.objects.filter(competition=competition, is_baseline=False).order_by("id")
    submission = like[chance.randrange(5000)]
    submission.pk, submission.created_at, submission.name = None, now, f"fresh-{chance.randrange(10**6)}"
    submission = Submission.objects.create(
        **{f.attname: getattr(submission, f.attname) for f in Submission._meta.concrete_fields if not f.primary_key}
    )
    run = Run.claim(Run.enqueue(submission, now, "Accepted and queued.").pk, "bench", now)
    if run is None:
        raise SystemExit("The run of the benchmark was taken by another worker.")
    for state in (RunState.BUILDING, RunState.EVALUATING, RunState.SCORING):
        run.transition(state, "On.", now=now + timedelta(milliseconds=1))
    scored = []
    for suite in competition.suites.filter(is_active=True):
        rows = [
            SampleRow(task["name"], index, "?", "5", "5", float(chance.random() < 0.7), None)
            for task in suite.tasks
            for index in range(task["items"])
        ]
        scored.append(ScoredSuite(suite, _result(suite, rows, "1"), rows))
    record_scores(run, scored, "sha256:" + "e" * 64)


def _targets(seed: int) -> dict[str, list[str]]:
    """Addresses by kind, as often as they are asked for: every second board is the largest one."""
    from tiltyard.competitions.models import Competition  # noqa: PLC0415
    from tiltyard.submissions.models import Run  # noqa: PLC0415
    from tiltyard.submissions.states import RunState  # noqa: PLC0415

    chance = random.Random(seed)  # noqa: S311  not for secrets
    slugs = list(Competition.objects.order_by("pk").values_list("slug", flat=True))
    runs = list(Run.objects.filter(state=RunState.SCORED).order_by("pk").values_list("pk", flat=True))
    boards = [f"/competitions/{slug}/leaderboard/" for slug in slugs]
    pages = [f"{boards[0]}?page={chance.randrange(1, 20)}" for _ in range(len(slugs) // 2)]
    return {
        "board": [*boards, *[boards[0]] * (len(slugs) // 2), *pages],
        "competition": [f"/competitions/{slug}/" for slug in slugs],
        "run": [f"/runs/{run}/" for run in chance.sample(runs, min(5000, len(runs)))],
        "home": ["/"],
    }


@dataclass
class Asked:
    times_ms: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    bytes_: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, collections.Counter[int]] = field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )


async def _ask(port: int, targets: dict[str, list[str]], *, rate: float, seconds: float, seed: int) -> Asked:
    """Requests at a fixed rate; `home` is a tenth of what the others are."""
    chance = random.Random(seed)  # noqa: S311  not for secrets
    asked = Asked()
    weights = [0.1 if kind == "home" and len(targets) > 1 else 1.0 for kind in targets]
    cookies = await asyncio.to_thread(_sessions)
    options: dict[str, Any] = {
        "timeout": aiohttp.ClientTimeout(total=30),
        "cookie_jar": aiohttp.DummyCookieJar(),
        # uvicorn closes what was idle for five seconds, perhaps while the next request is on its way.
        "connector": aiohttp.TCPConnector(limit=0, keepalive_timeout=2),
    }
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=HEADERS, **options) as client:
        began = time.perf_counter()
        tasks = []
        for number in range(round(rate * seconds)):
            (kind,) = chance.choices(list(targets), weights)
            path = chance.choice(targets[kind])
            headers = {"Cookie": f"sessionid={chance.choice(cookies)}"} if chance.random() < SIGNED_IN else {}
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(_get(client, kind, path, headers, asked)))
        await asyncio.gather(*tasks)
    return asked


async def _get(client: aiohttp.ClientSession, kind: str, path: str, headers: dict[str, str], asked: Asked) -> None:
    began = time.perf_counter()
    status, body = 0, b""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with client.get(path, headers=headers) as response:
            status, body = response.status, await response.read()
    asked.times_ms[kind].append(1000 * (time.perf_counter() - began))
    asked.statuses[kind][status] += 1
    asked.bytes_[kind] = max(asked.bytes_.get(kind, 0), len(body))


def _sessions() -> list[str]:
    """Cookies of fifty people who are signed in."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY  # noqa: PLC0415
    from django.contrib.sessions.backends.db import SessionStore  # noqa: PLC0415
    from django.db import connection  # noqa: PLC0415

    from tiltyard.accounts.models import User  # noqa: PLC0415

    found = []
    for user in User.objects.order_by("pk")[:50]:
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.create()
        found.append(str(session.session_key))
    connection.close()
    return found


def _report(asked: Asked) -> dict[str, dict[str, float]]:
    report = {}
    for kind, times in sorted(asked.times_ms.items()):
        cuts = statistics.quantiles(times, n=100)
        report[kind] = {
            "requests": len(times),
            "p50": round(cuts[49], 1),
            "p95": round(cuts[94], 1),
            "p99": round(cuts[98], 1),
            "max": round(max(times), 1),
            "largest_kib": round(asked.bytes_[kind] / 1024),
            "not_200": sum(count for status, count in asked.statuses[kind].items() if status != 200),
        }
    return report


def _sizes() -> dict[str, Any]:
    from tiltyard.leaderboards.models import BoardStatistics  # noqa: PLC0415
    from tiltyard.submissions.models import Run, RunEvent, TaskResult  # noqa: PLC0415

    models = SimpleNamespace(runs=Run, events=RunEvent, task_results=TaskResult, boards_computed=BoardStatistics)
    return {name: model.objects.count() for name, model in vars(models).items()}


if __name__ == "__main__":
    sys.exit(main())
