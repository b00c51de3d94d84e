"""Ask the advisory database (OSV) about every pinned dependency.

    python scripts/audit.py                   exit status 0: no known fault; 1: a fault; 2: the database did not answer
    python scripts/audit.py --offline-ok      the same, but 0 with a warning when it did not answer

An audit that cannot be made must not look like one that found nothing: the last line of the output says which it was.
"""

import argparse
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
OSV_URL = "https://api.osv.dev/v1/query"
CONNECT_TIMEOUT_S = 10.0


def main() -> int:
    options = _options()
    answer = _ask(options.requirement, options.osv_url)
    if isinstance(answer, str):
        print(answer, file=sys.stderr)
        print("NOT AUDITED: the advisory database could not be asked. Run `make audit` where there is a network.")
        return 0 if options.offline_ok else 2
    faulty = [one for one in answer if one.get("vulns")]
    for one in faulty:
        for fault in one["vulns"]:
            fixed = ", ".join(fault.get("fix_versions") or []) or "no fixed version yet"
            print(f"{one['name']} {one['version']}: {fault['id']} (fixed in: {fixed})")
    print(f"{len(answer)} dependencies audited, {len(faulty)} with known faults.")
    return 1 if faulty else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offline-ok", action="store_true", help="exit status 0 when the database does not answer")
    parser.add_argument("--requirement", type=Path, default=CONSTRAINTS, help="what to ask about, as pinned names")
    parser.add_argument("--osv-url", default=OSV_URL)
    return parser.parse_args()


def _ask(requirement: Path, osv_url: str) -> list[dict[str, Any]] | str:
    """What the database knows of each dependency; a text with the reason when it could not be asked."""
    address = urlsplit(osv_url)
    try:  # pip-audit would try for minutes, where there is no network at all
        socket.create_connection((address.hostname, address.port or 443), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return f"{address.hostname} cannot be reached: {error}"
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirement), "--no-deps", "--disable-pip"]
    command += ["--strict", "--vulnerability-service", "osv", "--osv-url", osv_url, "--format", "json"]
    done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False)
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        return done.stderr.strip()[-1000:]


if __name__ == "__main__":
    sys.exit(main())
