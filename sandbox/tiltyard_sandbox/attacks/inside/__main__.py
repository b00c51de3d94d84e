"""`python3 -m tiltyard_sandbox.attacks.inside JSON`: see `base.run_all`."""

import sys

from tiltyard_sandbox.attacks.inside import base, calls, files, network, resources

__all__ = ["calls", "files", "network", "resources"]  # imported for the attacks that they hold

base.run_all(sys.argv[1])
