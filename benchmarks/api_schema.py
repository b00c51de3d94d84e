"""schemathesis over the API's OpenAPI schema, against a running site: with a token, and as a stranger.

    python benchmarks/api_schema.py --examples 500 --seed 1

No answer may be a failure of the server (5xx), or one that the schema does not name. With TILTYARD_TEST_POSTGRES_URL,
as `python scripts/services.py run --postgres -- …` sets it, the site is on PostgreSQL, else on SQLite.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY_DIR = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY_DIR / "tests" / "support"))

from schema_runs import ask_everything, site_environment  # noqa: E402
from upload_server import OWNER_TOKEN, running  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=500, help="random questions of each operation")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    environment = site_environment()
    if postgres := os.environ.get("TILTYARD_TEST_POSTGRES_URL"):
        environment["TILTYARD_DATABASE_URL"] = postgres
    worst = 0
    with tempfile.TemporaryDirectory(prefix="api-schema-") as name:
        data = Path(name) / "data"
        data.mkdir()
        with running(data, **environment) as server:
            for who, token in (("signed in", OWNER_TOKEN), ("stranger", None)):
                start = time.monotonic()
                run = ask_everything(server.url, token, Path(name), examples=options.examples, seed=options.seed)
                seconds = time.monotonic() - start
                print(f"{who}: {run.cases} cases in {seconds:.0f} s, {run.failures} failures")
                if run.returncode:
                    print(run.output)
                worst = max(worst, run.returncode)
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
