"""Uploads that were broken off: a server that was killed in the middle of one removes nothing."""

import logging
import time
from datetime import timedelta
from pathlib import Path

from django.conf import settings

logger = logging.getLogger(__name__)

KEPT_FOR = timedelta(days=1)


def remove_orphans() -> int:
    """Remove uploads, and artefacts on their way into place, that nothing has written to for a day; how many."""
    oldest = time.time() - KEPT_FOR.total_seconds()
    files = [*Path(settings.UPLOAD_DIR).iterdir(), *Path(settings.ARTEFACT_DIR).glob("*/.*.part")]
    removed = sum(_remove_if_older(file, oldest) for file in files)
    if removed:
        logger.warning("removed %d uploads that were broken off", removed)
    return removed


def _remove_if_older(file: Path, oldest: float) -> bool:
    try:
        if file.lstat().st_mtime >= oldest or not file.is_file():
            return False
        file.unlink()
    except FileNotFoundError:  # another process of the web server was quicker, or the upload has just ended
        return False
    return True
