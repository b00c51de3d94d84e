"""What a page costs in processor time, which does not depend on what else the machine does.

    TILTYARD_DATABASE_URL=… python benchmarks/pages/cpu_time.py --requests 100

Needs a database that fill.py has filled. Every page is asked for through the whole stack of middleware in this process,
by visitors of whom a third is signed in, and twice before it counts, so that boards are kept and templates are
compiled. Counted are this process and the PostgreSQL backend of its connection, which must run on this machine.
Milliseconds.
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import django

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "queue")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=100, help="of each kind")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tiltyard.settings")
    django.setup()
    from load import _targets  # noqa: PLC0415 - needs Django

    report = {kind: _measure(paths, options.requests) for kind, paths in _targets(1).items()}
    print(json.dumps(report, indent=2))


def _measure(paths: list[str], requests: int) -> dict[str, float]:
    from django.db import connection  # noqa: PLC0415
    from django.test import Client  # noqa: PLC0415

    from tiltyard.accounts.models import User  # noqa: PLC0415

    clients = [Client(), Client(), Client()]
    clients[2].force_login(User.objects.order_by("pk")[30], backend="django.contrib.auth.backends.ModelBackend")
    chance = random.Random(1)  # noqa: S311  not for secrets
    asked = [(chance.choice(clients), chance.choice(paths)) for _ in range(requests)]
    for client, path in {(id(client), path): (client, path) for client, path in asked}.values():
        for _ in range(2):
            if client.get(path).status_code != 200:
                raise SystemExit(f"{path} does not answer 200.")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = _cpu_ms_of(cursor.fetchone()[0])
    times_ms, begin_ms = [], backend()
    for client, path in asked:
        began = time.process_time()
        client.get(path)
        times_ms.append(1000 * (time.process_time() - began))
    cuts = statistics.quantiles(times_ms, n=20)
    return {
        "requests": requests,
        "web_p50": round(statistics.median(times_ms), 1),
        "web_p95": round(cuts[18], 1),
        "web_max": round(max(times_ms), 1),
        "postgres_mean": round((backend() - begin_ms) / requests, 1),
    }


def _cpu_ms_of(pid: int) -> Callable[[], float]:
    def read() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return read


if __name__ == "__main__":
    main()
