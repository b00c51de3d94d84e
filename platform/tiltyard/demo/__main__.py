"""`python -m tiltyard.demo [--once]`: set up the demo competition, run its baselines, serve until interrupted.

Run it beside Redis and Docker, as `make demo` does. Doing it again repeats no work.
"""

import argparse
import os
import sys
from pathlib import Path

from tiltyard.demo import interrupts, place


def main() -> int:
    """The demo's exit status: 0 when it served or is done, 1 when a baseline has no score, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tiltyard.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop when the baselines are scored")
    options = parser.parse_args()
    interrupts.install()
    settings = place.prepare(Path(os.environ.get("TILTYARD_DATA_DIR", place.REPOSITORY_DIR / "var")))
    os.environ |= settings.environment  # before Django reads its settings
    import django  # noqa: PLC0415

    django.setup()
    from tiltyard.demo.show import DemoError, run  # noqa: PLC0415

    try:
        return run(settings, once=options.once)
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)  # noqa: T201
        return 1
    except interrupts.Interrupted:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
