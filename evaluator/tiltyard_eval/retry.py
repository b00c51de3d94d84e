"""Asking again, a bounded number of times, after faults that can pass: no connection, 429, 503.

The pauses double (exponential back-off). A server that says how long it wants to be left alone (`Retry-After`, RFC 9110
section 10.2.3) gets that time, up to `MAX_PAUSE_S`; the run's deadline bounds all of it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tiltyard_eval.errors import Busy, Unreachable
from tiltyard_eval.http_client import HttpClient

MAX_PAUSE_S: Final = 60.0


@dataclass
class RetryPolicy:
    """Pauses in seconds between the tries, so one try more than pauses; `used` counts the retries made."""

    pauses_s: tuple[float, ...] = (0.2, 0.4, 0.8, 1.6, 3.2)
    used: int = field(default=0, init=False)


@dataclass
class Poster:
    """Sends the requests that one batch needs; it is the `Post` of the adapters.

    Args:
        client: Open.
        retry: Pauses; shared by all posters of a run.
        on_trouble: Told of every try that met an overloaded or unreachable server, with the time it was sent at.
        latencies_s: Seconds from the first byte sent to the last byte read, of each answered request; without pauses
            and without tries that failed.
    """

    client: HttpClient
    retry: RetryPolicy
    on_trouble: Callable[[float], None] = lambda _sent_at: None
    latencies_s: list[float] = field(default_factory=list)

    async def __call__(self, path: str, body: dict[str, Any], *, extra_bytes: int = 0) -> Any:
        """POST `body` and return the parsed answer.

        Raises:
            Unreachable, Busy: When the last try failed in the same way.
            AnswerFault, RunFailed: At once for every other fault; asking again would not mend it.
        """
        for pause_s in self.retry.pauses_s:
            sent_at = time.monotonic()
            try:
                return await self._send(path, body, extra_bytes)
            except (Unreachable, Busy) as fault:
                self.on_trouble(sent_at)
                self.retry.used += 1
                wanted_s = fault.retry_after_s if isinstance(fault, Busy) else 0.0
                await asyncio.sleep(max(pause_s, min(wanted_s, MAX_PAUSE_S)))
        return await self._send(path, body, extra_bytes)

    async def _send(self, path: str, body: dict[str, Any], extra_bytes: int) -> Any:
        sent_at = time.monotonic()
        answer = await self.client.fetch_json("POST", path, body, extra_bytes=extra_bytes)
        self.latencies_s.append(round(time.monotonic() - sent_at, 4))
        return answer
