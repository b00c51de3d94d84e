"""What happens before the first question: wait for `/health`, then see whether the server speaks the protocol.

The probe's prompts are public, so its messages may describe what came in detail.
"""

import asyncio
import time
from dataclasses import dataclass

from tiltyard_eval.adapters import Adapter, GenerationSettings
from tiltyard_eval.errors import AnswerFault, RunFailed, Unreachable
from tiltyard_eval.http_client import HttpClient
from tiltyard_eval.retry import RetryPolicy, fetch_with_retry

PROMPTS = ("Question: What is 2 plus 3?\nAnswer:", "Question: Write the word tree in capital letters.\nAnswer:")
SETTINGS = GenerationSettings(max_tokens=8, temperature=0.0, stop=("\n",))
_POLL_S = 0.1
_HEALTH_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Capabilities:
    """What the probe found out: whether one request may carry several prompts."""

    batches: bool


async def wait_until_ready(client: HttpClient, timeout_s: float) -> None:
    """Poll `GET /health` until it answers 200.

    Raises:
        RunFailed: `start_timeout` after `timeout_s` seconds.
    """
    give_up_at = time.monotonic() + timeout_s
    last: int | None = None
    while (left_s := give_up_at - time.monotonic()) > 0:
        status = await client.status_of("/health", timeout_s=min(_HEALTH_TIMEOUT_S, left_s))
        if status == 200:
            return
        last = status if status is not None else last
        await asyncio.sleep(min(_POLL_S, left_s))
    seen = "nothing listened or answered" if last is None else f"the last status was {last}"
    raise RunFailed("start_timeout", f"GET /health did not answer 200 within {timeout_s:g} s ({seen}).")


async def probe(client: HttpClient, adapter: Adapter, retry: RetryPolicy, seed: int) -> Capabilities:
    """Ask one public prompt, then two at once.

    Raises:
        RunFailed: `protocol_error`, `time_limit` or `crashed` when even one prompt is not answered as the adapter
            expects. A server that answers one prompt but not two is asked one by one.
    """
    try:
        await adapter.discover(client)
        await _ask(client, adapter, retry, PROMPTS[:1], seed)
    except AnswerFault as fault:
        raise _probe_failure(fault, adapter) from fault
    try:
        await _ask(client, adapter, retry, PROMPTS, seed)
    except Unreachable as fault:
        raise _probe_failure(fault, adapter) from fault
    except AnswerFault:
        return Capabilities(batches=False)
    return Capabilities(batches=True)


async def _ask(client: HttpClient, adapter: Adapter, retry: RetryPolicy, prompts: tuple[str, ...], seed: int) -> None:
    answer = await fetch_with_retry(client, adapter.path, adapter.body(prompts, SETTINGS, seed), retry)
    adapter.texts(answer, len(prompts))


def _probe_failure(fault: AnswerFault, adapter: Adapter) -> RunFailed:
    if isinstance(fault, Unreachable):
        return RunFailed("crashed", f"The server was ready but then did not answer a trial request: {fault.message}.")
    if fault.kind == "timeout":
        return RunFailed("time_limit", f"The server did not answer a trial request in time: {fault.message}.")
    return RunFailed(
        "protocol_error",
        f"The server does not speak the adapter {adapter.name!r}. A trial request to POST {adapter.path} with one "
        f"short prompt failed: {fault.message}. No question was asked.",
    )
