"""Ten thousand fuzzed uploads and bundles through the real intake and the real import.

    python benchmarks/fuzz_intake.py --uploads 9000 --bundles 1000 --seed 1

Each case is accepted or refused in words, within its time, and leaves no row and no file; what does otherwise is named
with its seed, and the exit status is 1. A seed gives the same case on every machine (tests/support/fuzz_archives.py).
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY_DIR = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY_DIR / "tests" / "support"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=9000)
    parser.add_argument("--bundles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the first case; the others follow")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        return run(Path(name), options)


def run(directory: Path, options: argparse.Namespace) -> int:
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "tiltyard.settings",
        "TILTYARD_DATA_DIR": str(directory / "site"),
        "TILTYARD_DATABASE_URL": f"sqlite:///{directory}/site.sqlite3",
        "TILTYARD_REFUSED_UPLOADS_MAX": "0",
        "TILTYARD_LOG_LEVEL": "ERROR",
    }
    import django  # noqa: PLC0415 - the settings are read when it is set up

    django.setup()
    from bundles_for_tests import write_bundle  # noqa: PLC0415
    from django.core.management import call_command  # noqa: PLC0415
    from django.utils import timezone  # noqa: PLC0415
    from fuzz_runs import Findings, fuzz_bundles, fuzz_uploads  # noqa: PLC0415
    from web_rows import make_site  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    good = write_bundle(directory / "good")

    def report(kind: str, findings: Findings, seconds: float) -> int:
        cases = sum(findings.outcomes.values())
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(findings.outcomes.items()))
        print(f"{kind}: {cases} in {seconds:.0f} s ({counts}); slowest {findings.slowest_s:.2f} s")
        for fault in findings.faults:
            print(f"  FAULT {fault}")
        return len(findings.faults)

    start = time.monotonic()
    seeds = range(options.seed, options.seed + options.bundles)
    found = fuzz_bundles(seeds, good, directory / "b")
    faults = report("bundles", found, time.monotonic() - start)
    start = time.monotonic()
    site = make_site(timezone.now())
    seeds = range(options.seed, options.seed + options.uploads)
    found = fuzz_uploads(seeds, site.owner, site.competition, directory / "u")
    faults += report("uploads", found, time.monotonic() - start)
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most; faults: {faults}")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
