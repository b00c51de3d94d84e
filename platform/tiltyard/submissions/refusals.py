"""Uploads that were refused: they cost no quota, but reading them costs the site, so they are counted as well.

The count is in the cache, by participant and hour. Where the cache cannot be reached, uploads go on uncounted.
"""

import logging
from datetime import datetime

from django.conf import settings
from django.core.cache import cache

from tiltyard.accounts.models import User

logger = logging.getLogger(__name__)

_HOUR_S = 3600


def count_refusal(owner: User, now: datetime) -> None:
    """Remember that a file of this participant was read and refused."""
    key = _key(owner, now)
    try:
        if not cache.add(key, 1, timeout=_HOUR_S):
            cache.incr(key)
    except ValueError:  # it ran out between the two calls, and its hour with it
        return
    except _redis_error() as error:
        logger.warning("a refused upload was not counted: %s", type(error).__name__)


def too_many_refusals(owner: User, now: datetime) -> str | None:
    """Why no file is read now, or None when one is."""
    limit = int(settings.REFUSED_UPLOADS_MAX)
    try:
        refused = int(cache.get(_key(owner, now), 0))
    except _redis_error() as error:
        logger.warning("refused uploads cannot be counted: %s", type(error).__name__)
        return None
    if not limit or refused < limit:
        return None
    return (
        f"{refused} of your uploads were refused this hour, and no more are read before the next full hour. "
        "Check an archive on your own machine first: tiltyard evaluate."
    )


def _redis_error() -> type[Exception]:
    """Asked for only when something was raised: Redis's client is a fifth of the time in which a web server starts."""
    from redis import RedisError  # noqa: PLC0415

    return RedisError


def _key(owner: User, now: datetime) -> str:
    return f"refused-uploads:{owner.pk}:{int(now.timestamp()) // _HOUR_S}"
