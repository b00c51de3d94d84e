"""Whether what the site needs answers: database, broker, and the disk that uploads and artefacts lie on."""

import logging
import os
import tempfile
from typing import Final

import redis
from django.conf import settings
from django.db import DatabaseError, connection

from tiltyard.submissions.ownership import require_own_store
from tiltyard.submissions.stores import StoreError, store

logger = logging.getLogger(__name__)

_REDIS_TIMEOUT_S: Final = 2


def check_all() -> dict[str, bool]:
    """By the name of each part, whether it answers."""
    return {"database": database_answers(), "broker": broker_answers(), "storage": storage_answers()}


def database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def broker_answers() -> bool:
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=_REDIS_TIMEOUT_S, socket_timeout=_REDIS_TIMEOUT_S
        ) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def storage_answers() -> bool:
    """Whether a byte can be written where uploads arrive, and the store of artefacts answers and is not another site's.

    What is handed in to another site's store is removed there.
    """
    if not store().answers():
        return False
    try:
        require_own_store()
    except StoreError as error:
        logger.error("%s", error)
        return False
    except DatabaseError:
        return False  # nobody can tell whose it is
    try:
        with tempfile.TemporaryFile(dir=settings.UPLOAD_DIR) as file:
            file.write(b"1")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True
