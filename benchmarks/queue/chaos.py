"""Kill everything at random moments, and look whether every run still ends with exactly one verdict.

    python benchmarks/queue/chaos.py --runs 200 --seed 1
    python benchmarks/queue/chaos.py --runs 200 --seed 1 --containers

A private site, with PostgreSQL, Redis without persistence, web server, maintenance worker and two workers, takes
submissions through the API, each evaluated by a child process that sleeps. Meanwhile, by a seeded choice: SIGKILL to
the whole process group of any part, to an evaluation alone, SIGSTOP to a worker until its lease is long over (then it
wakes and tries to write), SIGTERM to a worker, and FLUSHALL to Redis. Exit status 0 when every check holds.

With --containers (as root) a Docker engine of its own belongs to the site: each submission is built and run in the
real sandbox, beside an evaluator that takes a second for a suite. Then evaluators' containers are killed in place of
children, and the engine is killed, restarted as by a service manager, and made to hang for seconds.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from containers import EVALUATOR_IMAGE, PYTHON_IMAGE, Engine
from system import System, running_system
from violence import Violence

LEASE_S = 4
SETTINGS = {
    "TILTYARD_RUN_LEASE_S": str(LEASE_S),
    "TILTYARD_RUN_ATTEMPTS_MAX": "5",
    "TILTYARD_QUEUE_REPUBLISH_S": "5",
    "TILTYARD_WORKER_DRAIN_S": "1",
    "TILTYARD_RUNS_PER_USER_MAX": "2",
    "TILTYARD_LOG_LEVEL": "WARNING",
    "STUB_SUITE_S": "0.5",  # of which a run has two
}
# Beyond the lease and the reaper's period, so that another worker has the run by then.
SLEEP_S = LEASE_S + 20.0
PARTICIPANTS = 8
# Two builds and an engine that is away for seconds share two cores: that is no time limit of a submission.
LIMITS = {"start_s": 90, "evaluate_s": 120, "build_s": 120}
DOCKERFILE = f'FROM {PYTHON_IMAGE}\nCOPY . /app\nCMD ["python3", "/app/server.py"]\n'


def main() -> int:
    options = _options()
    with ExitStack() as opened:
        engine = opened.enter_context(_running_engine()) if options.containers else None
        settings = SETTINGS | (_engine_settings(engine) if engine else {})
        system = opened.enter_context(running_system(workers=2, settings=settings))
        system.engine = engine
        tokens = _prepare()
        for part in system.parts[2:]:
            part.start()
        began = time.monotonic()
        chance = random.Random(options.seed)  # noqa: S311  not for secrets
        violence = Violence(system, chance, mean_pause_s=options.pause, sleep_s=SLEEP_S)
        upload = threading.Thread(target=_hand_in, args=(system, tokens, options.runs), daemon=True)
        upload.start()
        violence.start()
        ended = _wait(options.runs, options.minutes * 60)
        violence.stop()
        upload.join(timeout=30)
        return _report(options, system, violence, seconds=time.monotonic() - began, ended=ended)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=2.0, help="mean seconds between two acts of violence")
    parser.add_argument("--minutes", type=float, default=20.0, help="after which a run that has not ended is lost")
    parser.add_argument("--containers", action="store_true", help="with an engine of its own and the real sandbox")
    return parser.parse_args()


@contextmanager
def _running_engine() -> Iterator[Engine]:
    with TemporaryDirectory(prefix="tiltyard-engine-", ignore_cleanup_errors=True) as name:
        engine = Engine(Path(name))
        engine.part.start()
        try:
            engine.fill()
            yield engine
        finally:
            engine.stop()


def _engine_settings(engine: Engine) -> dict[str, str]:
    settings = {"STUB_CONTAINERS": "1", "DOCKER_HOST": engine.host, "TILTYARD_EVALUATOR_IMAGE": EVALUATOR_IMAGE}
    # Attacking an engine that is killed every other minute would leave no time for runs.
    return settings | {"TILTYARD_WORKER_SELFCHECK": "0"}


def _prepare() -> list[str]:
    """The participants' API tokens."""
    from tiltyard.accounts.models import ApiToken, User  # noqa: PLC0415 - the settings are read now
    from tiltyard.competitions.models import Track  # noqa: PLC0415

    track = Track.objects.get()
    track.limits |= LIMITS
    track.save()
    people = [
        User.objects.create_user(f"p{n}", f"p{n}@example.org", "correct horse battery") for n in range(PARTICIPANTS)
    ]
    return [ApiToken.issue(person, "chaos")[1] for person in people]


def _hand_in(system: System, tokens: list[str], runs: int) -> None:
    """Every submission by its name, asked for again until the site says that it has it."""
    import tiny_server  # noqa: PLC0415 - the path is set by now
    from uploads_for_tests import context_archive  # noqa: PLC0415

    server = Path(tiny_server.__file__).read_text()
    for number in range(runs):
        name = f"entry-{number}"
        path = context_archive(
            system.directory / f"{name}.tar.gz",
            dockerfile=DOCKERFILE,
            manifest={"name": name},
            files={"n": name, "server.py": server},
        )
        headers = {"Authorization": f"Bearer {tokens[number % PARTICIPANTS]}"}
        address = f"http://127.0.0.1:{system.web_port}/api/v1"
        while True:
            try:
                with httpx.Client(base_url=address, headers=headers, timeout=30) as client:
                    known = client.get("/submissions", params={"limit": 500}).raise_for_status().json()
                    if any(one["name"] == name for one in known):
                        break
                    with path.open("rb") as file:
                        client.post("/competitions/small/submissions", files={"file": file}).raise_for_status()
                    break
            except httpx.HTTPError:
                time.sleep(0.3)


def _wait(runs: int, timeout_s: float) -> bool:
    """Until every run is over, with the database away now and then."""
    from django.db import Error, connection  # noqa: PLC0415

    from tiltyard.submissions.models import Run  # noqa: PLC0415
    from tiltyard.submissions.states import FINAL  # noqa: PLC0415

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if Run.objects.filter(state__in=FINAL).count() >= runs and not Run.objects.unfinished().exists():
                return True
        except Error:
            connection.close()
        time.sleep(1)
    return False


def _report(options: argparse.Namespace, system: System, violence: Violence, *, seconds: float, ended: bool) -> int:
    """Print it; the exit status."""
    from outcomes import figures, problems  # noqa: PLC0415 - it needs Django

    found = ([] if ended else ["not every run has ended in time"]) + problems(
        {f"entry-{number}" for number in range(options.runs)}
    )
    found += [f"left on the engine: {one}" for one in _left(system)]
    kinds = {kind: times for kind, times in violence.done.items() if times}
    report = {
        "seed": options.seed,
        "runs": options.runs,
        "seconds": round(seconds),
        "kills": kinds,
        "kills_in_all": sum(times for kind, times in kinds.items() if "started again" not in kind),
        **figures(),
        "problems": found,
    }
    print(json.dumps(report, indent=2))
    if found:
        print(system.logs(), file=sys.stderr)
    return 1 if found else 0


def _left(system: System) -> list[str]:
    """What is still on the engine after the sweep with which a worker starts."""
    from tiltyard.worker.strays import sweep_strays  # noqa: PLC0415
    from tiltyard_sandbox.leftovers import remove_first_steps  # noqa: PLC0415

    for worker in system.workers:
        worker.ask_to_stop(20)
    if system.engine is None:
        return []
    with closing(system.engine.client()) as client:
        sweep_strays(client)
        remove_first_steps(client, older_than_s=0.0)  # the sweep takes those of an hour ago, as builds may go on
    return system.engine.left()


if __name__ == "__main__":
    sys.exit(main())
