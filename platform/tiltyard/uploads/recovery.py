"""What a web server does when it starts: end what was abandoned, and check files whose server died too early."""

import logging
import threading

from django.db import DatabaseError, connection
from django.utils import timezone

from tiltyard.uploads import service

logger = logging.getLogger(__name__)


def recover_soon() -> threading.Thread:
    """Recover in a thread of its own: a file of 50 GB is hashed for a while, and the site answers meanwhile."""
    thread = threading.Thread(target=_recover, name="recover-uploads", daemon=True)
    thread.start()
    return thread


def _recover() -> None:
    try:
        now = timezone.now()
        service.expire(now)
        service.finish_complete()
        service.sweep(now)
    except DatabaseError as error:  # not yet migrated, or not there yet: the next start, or the client, comes again
        logger.warning("unfinished uploads were not looked at: %s", error)
    except OSError:
        logger.exception("the files of unfinished uploads could not be looked at")
    finally:
        connection.close()
