"""The ASGI entry point, for uvicorn and gunicorn's uvicorn worker."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tiltyard.settings")
os.environ.setdefault("TILTYARD_DATABASE_POOL", "8")

django_application = get_asgi_application()

from tiltyard.submissions.orphans import remove_orphans  # noqa: E402 - needs Django to be set up
from tiltyard.submissions.uploads import UploadSizeLimit  # noqa: E402 - needs Django to be set up
from tiltyard.uploads.app import ResumableUploads  # noqa: E402 - needs Django to be set up
from tiltyard.uploads.recovery import recover_soon  # noqa: E402 - needs Django to be set up

remove_orphans()
recover_soon()
application = ResumableUploads(UploadSizeLimit(django_application))
