"""`python -m tiltyard.cli`: the same as the command `tiltyard`."""

from tiltyard.cli import main

main()
