"""The shared cache of production: Redis, whose absence costs the counts of limits and not the site.

What lies in the cache is rates, how often somebody logged in wrongly or called the API, and for a minute the rows of
long boards. While Redis restarts, nothing is counted and nobody is refused, and each process makes its own boards;
PostgreSQL and the pages go on.

Django makes a cache, and with it a pool of connections, for every thread. Here all threads of a process share one.
"""

import logging
import time
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, Final

from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

_COMPLAIN_EVERY_S: Final = 60.0
_complained_at = -_COMPLAIN_EVERY_S


class ForgivingRedisCache(RedisCache):
    """Django's Redis cache; without Redis it is an empty one that takes everything and keeps nothing."""

    @cached_property
    def _cache(self) -> RedisCacheClient:
        servers, options = self._servers, self._options  # type: ignore[attr-defined]  # the stubs leave them out
        return _client(tuple(servers), tuple(sorted(options.items())))

    def add(self, *args: Any, **options: Any) -> bool:
        return bool(_forgiven(lambda: super(ForgivingRedisCache, self).add(*args, **options), True))

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return _forgiven(lambda: super(ForgivingRedisCache, self).get(key, default, version), default)

    def set(self, *args: Any, **options: Any) -> None:
        _forgiven(lambda: super(ForgivingRedisCache, self).set(*args, **options), None)

    def delete(self, *args: Any, **options: Any) -> bool:
        return bool(_forgiven(lambda: super(ForgivingRedisCache, self).delete(*args, **options), False))

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Raises ValueError for a key that is not there, and that is every key while Redis is away."""
        count = _forgiven(lambda: super(ForgivingRedisCache, self).incr(key, delta, version), None)
        if count is None:
            raise ValueError(f"There is no key {key!r}.")
        return int(count)


@cache
def _client(servers: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> RedisCacheClient:
    """Safe to use from many threads, and after a fork: redis-py's pool is."""
    return RedisCacheClient(list(servers), **dict(options))


def _forgiven(act: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return act()
    except RedisError as error:
        _complain(error)
        return otherwise


def _complain(error: RedisError) -> None:
    """Once a minute: every request would have something to say."""
    global _complained_at  # noqa: PLW0603  one process, one clock; a line too many does no harm
    now = time.monotonic()
    if now - _complained_at >= _COMPLAIN_EVERY_S:
        _complained_at = now
        logger.warning("the cache does not answer, so limits are not counted and boards not shared: %s", error)
