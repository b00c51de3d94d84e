"""One HTTP request to a server that is not trusted.

What is bounded: the time from the first byte sent to the last byte read, the bytes of the body, the length and number
of headers (aiohttp's own limits), and the JSON's depth (the interpreter's). What is refused: redirects, compressed
bodies (a small one can unpack to gigabytes), other content types, NaN and Infinity, a name that stands twice in an
object. No proxy of the environment and no cookie is used. Messages name what came in general words, never the body.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import aiohttp

from tiltyard_eval.errors import AnswerFault, Busy, RunFailed, Unreachable, WrongStatus

RESPONSE_CAP_BYTES = 1024 * 1024
MAX_EXTRA_BYTES = 32 * 1024 * 1024
_BUSY = frozenset({429, 503})


@dataclass(frozen=True)
class HttpLimits:
    """What one request may take: seconds in all, and bytes of response body."""

    request_timeout_s: float
    response_bytes: int = RESPONSE_CAP_BYTES


class HttpClient:
    """A session with one server. Use as an asynchronous context manager.

    Args:
        base_url: `http://host:port`, without a trailing slash.
        limits: Bounds for every request.
        connections: Most connections open at once.
    """

    def __init__(self, base_url: str, limits: HttpLimits, *, connections: int) -> None:
        self.base_url = base_url
        self.limits = limits
        self.requests = 0
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "HttpClient":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # one deadline per request, set in _request
            auto_decompress=False,
            trust_env=False,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tiltyard-eval"},
        )
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def status_of(self, path: str, *, timeout_s: float) -> int | None:
        """The status of a GET, or None when nothing answered within `timeout_s`. The body is not read."""
        assert self._session is not None, "use the client as a context manager"  # noqa: S101 - a programming error
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._session.get(self.base_url + path, allow_redirects=False)
        except (aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            return None
        except ValueError:  # aiohttp raises it for some malformed status lines and header values
            return None
        response.close()
        return response.status

    async def fetch_json(
        self, method: str, path: str, payload: dict[str, Any] | None = None, *, extra_bytes: int = 0
    ) -> Any:
        """Send one request and return the parsed JSON body, which may be `extra_bytes` larger than the usual cap.

        `extra_bytes` counts up to `MAX_EXTRA_BYTES`.

        Raises:
            Unreachable: No complete answer came.
            Busy: Status 429 or 503.
            AnswerFault: Anything else that is not a 200 with JSON: `timeout`, `http_status`, `redirect`,
                `content_type`, `content_encoding`, `invalid_json`.
            RunFailed: `response_too_large`; no honest answer comes near the cap.
        """
        self.requests += 1
        try:
            async with asyncio.timeout(self.limits.request_timeout_s):
                body = await self._exchange(
                    method, path, payload, self.limits.response_bytes + min(extra_bytes, MAX_EXTRA_BYTES)
                )
        except TimeoutError as error:
            limit = self.limits.request_timeout_s
            raise AnswerFault("timeout", f"no complete answer came within {limit:g} s") from error
        except aiohttp.ClientConnectionError as error:
            raise Unreachable("the connection was refused or closed before an answer came") from error
        except aiohttp.ClientPayloadError as error:
            raise Unreachable("the connection was closed in the middle of the body") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise AnswerFault("invalid_http", "the answer is not well-formed HTTP") from error
        return _parse_json(body)

    async def _exchange(self, method: str, path: str, payload: dict[str, Any] | None, cap_bytes: int) -> bytes:
        assert self._session is not None, "use the client as a context manager"  # noqa: S101 - a programming error
        async with self._session.request(method, self.base_url + path, json=payload, allow_redirects=False) as response:
            try:
                _check_head(response)
                return await self._read_capped(response, cap_bytes)
            except (AnswerFault, RunFailed):
                response.close()  # do not read the rest of a body that is refused
                raise

    async def _read_capped(self, response: aiohttp.ClientResponse, cap: int) -> bytes:
        if (response.content_length or 0) > cap:
            _too_large(cap)
        body = bytearray()
        async for chunk in response.content.iter_chunked(64 * 1024):
            body += chunk
            if len(body) > cap:
                _too_large(cap)
        return bytes(body)


def _check_head(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status in _BUSY:
        raise Busy(status, retry_after_s(response.headers.get("Retry-After", ""), now=datetime.now(UTC)))
    if 300 <= status < 400:
        raise AnswerFault("redirect", f"the server answered with a redirect (status {status}), which is not followed")
    if status != 200:
        raise WrongStatus(status)
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
        raise AnswerFault("content_encoding", "the body is compressed, though the request did not allow it")
    if response.content_type != "application/json":
        raise AnswerFault("content_type", "the body's Content-Type is not application/json")


def retry_after_s(text: str, *, now: datetime) -> float:
    """Seconds that a `Retry-After` header (RFC 9110) asks for, as a number or as a date; 0 for anything else."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def _too_large(cap: int) -> NoReturn:
    raise RunFailed("response_too_large", f"The server sent an answer of more than {cap} bytes to one request.")


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except RecursionError as error:
        raise AnswerFault("invalid_json", "the body's JSON is nested too deeply") from error
    except ValueError as error:  # not UTF-8, not JSON, NaN, a name twice, or an integer of thousands of digits
        raise AnswerFault("invalid_json", "the body is not valid JSON") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ: with one twice, each reader would choose another value (RFC 8259, section 4)."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return found
