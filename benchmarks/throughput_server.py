"""A server that answers at once, or after a fixed latency: what is measured against it is the client alone.

    python throughput_server.py --port PORT [--latency SECONDS]

It speaks `/v1/completions` with echo, over texts and token numbers, and the native protocol. Log-probabilities are made
from the texts, without a model. `GET /stats` tells how many requests came, and when the first one did that held a
question of the suite; a probe's holds none.
"""

import argparse
import asyncio
import json
import re
import time
import zlib
from typing import Any

from aiohttp import web

_PROBES = (b"2 plus 3", b"Two plus three")
_PIECE = re.compile(r"\s*\S{1,6}|\s+")


class State:
    """Requests so far, and the clock (`time.time`) at the first of them."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.requests = 0
        self.first_at: float | None = None


def _number(text: object) -> float:
    return -0.1 - zlib.crc32(repr(text).encode()) % 1000 / 100


def _echoed(index: int, prompt: Any) -> dict[str, Any]:
    pieces = _PIECE.findall(prompt) if isinstance(prompt, str) else [str(token) for token in prompt]
    numbers = [None, *(_number(piece) for piece in pieces[1:]), -0.5]
    tops = [None if number is None else {"x": number} for number in numbers]
    logprobs = {"tokens": [*pieces, "!"], "token_logprobs": numbers, "top_logprobs": tops}
    return {"index": index, "text": "", "finish_reason": "length", "logprobs": logprobs}


def _completions(body: dict[str, Any]) -> dict[str, Any]:
    prompt = body["prompt"]
    prompts = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    if not body.get("echo"):
        texts = [{"index": index, "text": " 5", "finish_reason": "stop"} for index in range(len(prompts))]
        return {"choices": texts, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    choices = [_echoed(index, one) for index, one in enumerate(prompts)]
    total = sum(len(choice["logprobs"]["tokens"]) for choice in choices)
    return {"choices": choices, "usage": {"prompt_tokens": total - len(choices), "completion_tokens": len(choices)}}


def _generate(body: dict[str, Any]) -> dict[str, Any]:
    return {"outputs": [{"text": " 5", "finish_reason": "stop", "tokens": 1} for _ in body["prompts"]]}


def _likelihood(body: dict[str, Any]) -> dict[str, Any]:
    return {"outputs": [{"logprob": _number(pair), "is_greedy": False, "tokens": 1} for pair in body["pairs"]]}


def build_app(latency_s: float) -> web.Application:
    state = State(latency_s)

    async def page(request: web.Request) -> web.Response:
        if request.path == "/stats":
            return web.json_response({"requests": state.requests, "first_at": state.first_at})
        return web.json_response({"data": [{"id": "none"}]})

    async def answer(request: web.Request) -> web.Response:
        raw = await request.read()
        if not any(probe in raw for probe in _PROBES):
            state.first_at = state.first_at or time.time()
        state.requests += 1
        body = json.loads(raw)
        await asyncio.sleep(state.latency_s)
        return web.json_response(_HANDLERS[request.path](body))

    app = web.Application(client_max_size=2**28)
    app.add_routes([web.get(path, page) for path in ("/health", "/v1/models", "/stats")])
    app.add_routes([web.post(path, answer) for path in _HANDLERS])
    return app


_HANDLERS = {"/v1/completions": _completions, "/v1/generate": _generate, "/v1/loglikelihood": _likelihood}


async def _serve(latency_s: float, port: int) -> None:
    runner = web.AppRunner(build_app(latency_s), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024)
    await site.start()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    asyncio.run(_serve(options.latency, options.port))


if __name__ == "__main__":
    main()
