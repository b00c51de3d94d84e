"""Asking again, a bounded number of times, after faults that can pass: no connection, 429, 503."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tiltyard_eval.errors import Busy, Unreachable
from tiltyard_eval.http_client import HttpClient


@dataclass
class RetryPolicy:
    """Pauses in seconds between the tries, so one try more than pauses; `used` counts the retries made."""

    pauses_s: tuple[float, ...] = (0.2, 0.4, 0.8, 1.6, 3.2)
    used: int = field(default=0, init=False)


async def fetch_with_retry(client: HttpClient, path: str, body: dict[str, Any], retry: RetryPolicy) -> Any:
    """POST `body` and return the parsed answer.

    Raises:
        Unreachable, Busy: When the last try failed in the same way.
        AnswerFault, RunFailed: At once for every other fault; asking again would not mend it.
    """
    for pause_s in retry.pauses_s:
        try:
            return await client.fetch_json("POST", path, body)
        except (Unreachable, Busy):
            retry.used += 1
            await asyncio.sleep(pause_s)
    return await client.fetch_json("POST", path, body)
