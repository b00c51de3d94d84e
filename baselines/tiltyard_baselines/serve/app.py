"""The HTTP application: routes, errors as JSON, and the readiness of the model."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tiltyard_baselines.serve.jobs import EngineError, OverloadedError, RequestError

if TYPE_CHECKING:
    from tiltyard_baselines.serve.engine import Engine

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 * 2**20


@dataclass
class Backend:
    """What the application serves; ``engine`` is None while the model loads."""

    model_name: str
    engine: "Engine | None" = None


Handler = Callable[["Engine", Mapping[str, Any]], Awaitable[dict[str, Any]]]


def build_app(backend: Backend) -> Starlette:
    """Return the ASGI application over a backend that may still be loading."""

    async def health(request: Request) -> Response:
        del request
        if backend.engine is None:
            return _error(503, "the model is loading")
        return JSONResponse({"status": "ok"})

    async def models(request: Request) -> Response:
        del request
        from tiltyard_baselines.serve import protocol_openai  # noqa: PLC0415  imports torch; the port binds first

        context_tokens = backend.engine.runner.context_tokens if backend.engine is not None else None
        return JSONResponse(protocol_openai.models(backend.model_name, context_tokens))

    async def completions(engine: "Engine", body: Mapping[str, Any]) -> dict[str, Any]:
        from tiltyard_baselines.serve import protocol_openai  # noqa: PLC0415

        return await protocol_openai.completions(engine, backend.model_name, body)

    async def generate(engine: "Engine", body: Mapping[str, Any]) -> dict[str, Any]:
        from tiltyard_baselines.serve import protocol_native  # noqa: PLC0415

        return await protocol_native.generate(engine, body)

    async def loglikelihood(engine: "Engine", body: Mapping[str, Any]) -> dict[str, Any]:
        from tiltyard_baselines.serve import protocol_native  # noqa: PLC0415

        return await protocol_native.loglikelihood(engine, body)

    async def tokenizing(name: str, engine: "Engine", body: Mapping[str, Any]) -> dict[str, Any]:
        from tiltyard_baselines.serve import tokenizing  # noqa: PLC0415

        answer: Handler = getattr(tokenizing, name)
        return await answer(engine, body)

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/v1/models", models, methods=["GET"]),
            Route("/v1/completions", _endpoint(backend, completions), methods=["POST"]),
            Route("/v1/generate", _endpoint(backend, generate), methods=["POST"]),
            Route("/v1/loglikelihood", _endpoint(backend, loglikelihood), methods=["POST"]),
            Route("/tokenizer_info", _endpoint(backend, partial(tokenizing, "tokenizer_info")), methods=["GET"]),
            Route("/tokenize", _endpoint(backend, partial(tokenizing, "tokenize")), methods=["POST"]),
            Route("/detokenize", _endpoint(backend, partial(tokenizing, "detokenize")), methods=["POST"]),
        ]
    )


def _endpoint(backend: Backend, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if backend.engine is None:
            return _error(503, "the model is loading")
        try:
            body = {} if request.method in {"GET", "HEAD"} else await _read_body(request)
            return JSONResponse(await handler(backend.engine, body))
        except RequestError as error:
            return _error(400, str(error))
        except OverloadedError as error:
            return _error(429, str(error))
        except EngineError as error:
            return _error(500, str(error))
        except ClientDisconnect:
            return Response(status_code=499)  # nobody is left to read it

    return endpoint


async def _read_body(request: Request) -> Mapping[str, Any]:
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > MAX_BODY_BYTES:
            raise RequestError(f"the request's body is larger than {MAX_BODY_BYTES} bytes")
    try:
        body = json.loads(chunks)
    except (ValueError, RecursionError) as error:
        raise RequestError("the request's body is not JSON") from error
    if not isinstance(body, dict):
        raise RequestError("the request's body must be a JSON object")
    return body


def _error(status: int, message: str) -> Response:
    kinds = {400: "invalid_request_error", 429: "rate_limit_error"}
    return JSONResponse({"error": {"message": message, "type": kinds.get(status, "server_error")}}, status)
