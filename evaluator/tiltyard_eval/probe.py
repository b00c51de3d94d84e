"""What happens before the first question: wait until the server is ready, then see whether it speaks the protocol.

The probe's prompts are public, so its messages may describe what came in detail.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from tiltyard_eval.adapters import ADAPTERS, Adapter, GenerationSettings, Post, make_adapter
from tiltyard_eval.errors import AnswerFault, RunFailed, Unreachable, WrongStatus
from tiltyard_eval.http_client import HttpClient
from tiltyard_eval.questions import CHAT, GENERATE, LOGLIKELIHOOD

PROMPTS = ("Question: What is 2 plus 3?\nAnswer:", "Question: Write the word tree in capital letters.\nAnswer:")
PAIRS = ((PROMPTS[0], " 5"), (PROMPTS[0], " twenty"), (PROMPTS[1], " TREE"))
SETTINGS = GenerationSettings(max_tokens=8, temperature=0.0, stop=("\n",))
_POLL_S = 0.1
_HEALTH_TIMEOUT_S = 5.0
_NO_SUCH_PAGE = frozenset({404, 405, 501})

Batches = Mapping[str, bool]
"""For each kind of question that was probed: whether one request may carry several."""


async def wait_until_ready(client: HttpClient, adapter: Adapter, timeout_s: float) -> None:
    """Poll the adapter's pages, which is `/health` for most, until one answers what it takes for ready.

    Raises:
        RunFailed: `start_timeout` after `timeout_s` seconds.
    """
    give_up_at = time.monotonic() + timeout_s
    last: tuple[str, int] | None = None
    while (left_s := give_up_at - time.monotonic()) > 0:
        for path in adapter.ready_paths:
            status = await client.status_of(path, timeout_s=min(_HEALTH_TIMEOUT_S, left_s))
            if status is None:
                break
            if adapter.is_ready(status):
                return
            last = path, status
        await asyncio.sleep(min(_POLL_S, left_s))
    raise RunFailed(
        "start_timeout",
        f"The server was not ready within {timeout_s:g} s: {_seen(client.base_url, last)} "
        f"With the adapter {adapter.name!r} a server is ready when {adapter.ready_words}.",
    )


def _seen(url: str, last: tuple[str, int] | None) -> str:
    if last is None:
        return (
            f"nothing listened or answered at {url}. In a submission this is the port in TILTYARD_PORT; only "
            "images with the adapter 'neurips2023' listen on port 80 instead."
        )
    path, status = last
    if status == 404:
        return f"it listens, but has no page {path} (status 404)."
    return f"it listens, but the last status of GET {path} was {status}."


async def probe(client: HttpClient, adapter: Adapter, post: Post, kinds: Iterable[str], seed: int) -> Batches:
    """Ask one public question of each kind, then several at once.

    Raises:
        RunFailed: `protocol_error`, `time_limit` or `crashed` when even one question is not answered as the adapter
            expects. A server that answers one but not several in a request is asked one by one.
    """
    wanted = sorted(kinds)
    if CHAT in wanted and not adapter.support.chat:
        raise RunFailed(
            "protocol_error",
            f"The suite asks in conversations, which the adapter {adapter.name!r} does not have. Serve them as OpenAI "
            "does, and write `adapter: openai` into tiltyard.yaml.",
        )
    try:
        await adapter.discover(client)
    except AnswerFault as fault:
        raise _failure(fault, _does_not_speak(adapter), "GET /v1/models", "") from fault
    return {kind: await _TRIALS[kind](client, adapter, post, seed) for kind in wanted}


async def _try_generation(client: HttpClient, adapter: Adapter, post: Post, seed: int) -> bool:
    try:
        return await _try(
            lambda count: adapter.generate(post, PROMPTS[:count], SETTINGS, seed),
            several=len(PROMPTS) if adapter.support.batches else None,
            lacking=_does_not_speak(adapter),
            trial=f"POST {adapter.generate_path} with one short prompt",
            expected=adapter.expects[GENERATE],
        )
    except RunFailed as failure:
        if isinstance(failure.__cause__, WrongStatus) and failure.__cause__.status in _NO_SUCH_PAGE:
            raise await _with_other_adapter(failure, client, adapter) from failure.__cause__
        raise


async def _with_other_adapter(failure: RunFailed, client: HttpClient, adapter: Adapter) -> RunFailed:
    """The failure, with the adapter whose page the server does have: a page that takes POST alone answers a GET 405."""
    for other in (make_adapter(name) for name in ADAPTERS if name != adapter.name):
        if await client.status_of(other.generate_path, timeout_s=_HEALTH_TIMEOUT_S) == 405:
            return RunFailed(
                failure.reason,
                f"{failure.message} The server has a page {other.generate_path}: if it speaks {other.name!r}, write "
                f"`adapter: {other.name}` into tiltyard.yaml (for a URL: --adapter {other.name}).",
            )
    return failure


async def _try_chat(client: HttpClient, adapter: Adapter, post: Post, seed: int) -> bool:
    del client
    messages = [{"role": "user", "content": PROMPTS[0]}]
    return await _try(
        lambda _count: adapter.chat(post, messages, SETTINGS, seed),
        several=None,
        lacking="does not answer conversations, which the suite needs",
        trial="POST /v1/chat/completions with one short message",
        expected=adapter.expects[CHAT],
    )


async def _try_scoring(client: HttpClient, adapter: Adapter, post: Post, seed: int) -> bool:
    lacking = "does not give log-likelihoods, which the suite needs"
    trial = f"POST {adapter.score_path} for the log-likelihood of a short continuation"
    expected = adapter.expects[LOGLIKELIHOOD]
    try:
        await adapter.discover_scoring(client, post, seed)
    except AnswerFault as fault:
        raise _failure(fault, lacking, trial, expected) from fault
    return await _try(
        lambda count: adapter.score(post, PAIRS[:count], seed),
        several=len(PAIRS) if adapter.support.batches else None,
        lacking=lacking,
        trial=trial,
        expected=expected,
    )


_TRIALS = {GENERATE: _try_generation, CHAT: _try_chat, LOGLIKELIHOOD: _try_scoring}


async def _try(
    ask: Callable[[int], Awaitable[object]], *, several: int | None, lacking: str, trial: str, expected: str
) -> bool:
    """Ask one question, then `several` in a request; whether the server takes several."""
    try:
        await ask(1)
    except AnswerFault as fault:
        raise _failure(fault, lacking, trial, expected) from fault
    if several is None:
        return False
    try:
        await ask(several)
    except Unreachable as fault:
        raise _failure(fault, lacking, trial, expected) from fault
    except AnswerFault:
        return False
    return True


def _does_not_speak(adapter: Adapter) -> str:
    return f"does not speak the adapter {adapter.name!r}"


def _failure(fault: AnswerFault, lacking: str, trial: str, expected: str) -> RunFailed:
    if isinstance(fault, Unreachable):
        return RunFailed(
            "crashed",
            f"The server was ready but then did not answer a trial request ({trial}): {fault.message}. "
            "See the server's log.",
        )
    if fault.kind == "timeout":
        return RunFailed("time_limit", f"The server did not answer a trial request ({trial}) in time: {fault.message}.")
    found = fault.message
    if isinstance(fault, WrongStatus) and fault.status in _NO_SUCH_PAGE:
        found = f"there is no such page (status {fault.status})"
    elif isinstance(fault, WrongStatus) and fault.status == 500:
        found = f"{found}, an error inside the server: see its log"
    needed = f" What is needed: {expected}." if expected else ""
    return RunFailed("protocol_error", f"The server {lacking}. {trial}: {found}.{needed} No question was asked.")
