"""The ASGI entry point, for uvicorn and gunicorn's uvicorn worker.

All that answers requests is loaded here, before the server takes its first connection: Django would load the addresses
of pages and API, two seconds of imports and half of the process's memory, with the first request that needs them. The
command line and the workers, which do not come by here, go without.
"""

import gc
import os
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tiltyard.settings")
django.setup(set_prefix=False)

from django.urls import reverse  # noqa: E402 - needs Django to be set up

from tiltyard.submissions.orphans import remove_orphans  # noqa: E402 - needs Django to be set up
from tiltyard.submissions.uploads import UploadSizeLimit  # noqa: E402 - needs Django to be set up
from tiltyard.uploads.app import ResumableUploads  # noqa: E402 - needs Django to be set up
from tiltyard.uploads.recovery import recover_soon  # noqa: E402 - needs Django to be set up
from tiltyard.web.handler import ThreadedHandler  # noqa: E402 - needs Django to be set up
from tiltyard.worker import publishing  # noqa: E402, F401 - which an accepted upload imports

reverse("home")  # loads every address
remove_orphans()
recover_soon()
application = ResumableUploads(UploadSizeLimit(ThreadedHandler()))
# What is loaded stays. Looking for garbage after every seven hundred objects, as Python does by itself, costs most when
# a board of thousands of entries is made, none of which is garbage.
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 20, 50)
# A page waits for the database some six times, and each time for the interpreter as well when another thread computes:
# for five milliseconds, as Python has it.
sys.setswitchinterval(0.001)
