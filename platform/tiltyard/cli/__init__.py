"""The participants' command `tiltyard`. It starts without Django and without torch (tests/platform/cli hold it)."""

import sys


def main() -> None:
    """The entry point of the `tiltyard` script."""
    from tiltyard.cli.app import run  # noqa: PLC0415  `import tiltyard.cli` stays free for its submodules

    sys.exit(run(sys.argv[1:]))
