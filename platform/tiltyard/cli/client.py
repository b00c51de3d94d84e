"""The REST API as the command uses it: every answer checked, every failure one CliError that says what to do."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.resumable import SINGLE_REQUEST_BYTES_MAX, ResumableUpload

JSON_BYTES_MAX: Final = 64 << 20
_DETAIL_CHARACTERS_MAX: Final = 2000
# An upload is answered only after the server has hashed and checked it.
_TIMEOUT: Final = httpx.Timeout(30.0, read=300.0, write=300.0)
_EXIT_CODES: Final = {
    400: ExitCode.USAGE,
    413: ExitCode.USAGE,
    415: ExitCode.USAGE,
    422: ExitCode.USAGE,
}

Document = dict[str, Any]


class ApiClient:
    """One server, spoken to with one token (or none)."""

    def __init__(self, server: str, token: str | None) -> None:
        self.server = server
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        # Redirects are not followed: the token must not travel to an address that the user did not name.
        self._http = httpx.Client(base_url=f"{server}/api/v1", headers=headers, timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def me(self) -> Document:
        """The account that the token belongs to."""
        return _mapping(self._json("GET", "/me"))

    def competitions(self) -> list[Document]:
        """Every visible competition."""
        return _mappings(self._json("GET", "/competitions"))

    def competition(self, slug: str) -> Document:
        """One competition: tracks with limits, phases, suites, base images, seed."""
        return _mapping(self._json("GET", f"/competitions/{_segment(slug)}"))

    def leaderboard(self, slug: str, track: str | None, *, limit: int = 100, offset: int = 0) -> Document:
        """The leaderboard of one track, by default the first."""
        params: dict[str, str | int] = {"limit": limit, "offset": offset}
        if track:
            params["track"] = track
        return _mapping(self._json("GET", f"/competitions/{_segment(slug)}/leaderboard", params=params))

    def submit(
        self,
        slug: str,
        path: Path,
        filename: str,
        track: str | None,
        *,
        sha256: str = "",
        on_offset: Callable[[int], None],
        say: Callable[[str], None],
    ) -> Document:
        """Upload a submission. Gives `submission_id`, `run_id` and `url`.

        A large file goes in pieces: `on_offset` is told how many bytes the server has, `say` of pauses on the way. A
        later call goes on with what this one leaves: by the file's `sha256` if it is given, else by path and time.
        """
        if path.stat().st_size > SINGLE_REQUEST_BYTES_MAX:
            metadata = {"competition": slug, "filename": filename} | ({"track": track} if track else {})
            upload = ResumableUpload(self._http, self.server, self._refusal, say)
            return _mapping(upload.send(path, metadata, on_offset, sha256=sha256), "submission_id", "run_id", "url")
        with path.open("rb") as file:
            answer = self._json(
                "POST",
                f"/competitions/{_segment(slug)}/submissions",
                files={"file": (filename, file, "application/octet-stream")},
                data={"track": track} if track else {},
            )
        on_offset(path.stat().st_size)
        return _mapping(answer, "submission_id", "run_id", "url")

    def submissions(self) -> list[Document]:
        """The account's submissions, newest first."""
        return _mappings(self._json("GET", "/submissions"))

    def run(self, run_id: str) -> Document:
        """One run with its state, verdict and scores."""
        return _mapping(self._json("GET", f"/runs/{_segment(run_id)}"), "id", "state")

    def events(self, run_id: str, after: int) -> list[Document]:
        """The run's events whose id is greater than `after`, oldest first."""
        return _mappings(self._json("GET", f"/runs/{_segment(run_id)}/events", params={"after": after}))

    def manifests(self, run_id: str) -> list[tuple[str, str]]:
        """Each suite's name, fit for a file's, and its signed manifest as the server wrote it."""
        found = _mappings(self._json("GET", f"/runs/{_segment(run_id)}/manifests"))
        named = []
        for index, document in enumerate(found, start=1):
            manifest = document.get("manifest")
            suite = manifest.get("suite") if isinstance(manifest, dict) else None
            name = suite.get("name") if isinstance(suite, dict) else None
            fits = isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,79}", name)
            named.append((str(name) if fits else f"suite-{index}", json.dumps(document, indent=2) + "\n"))
        return named

    def signing_keys(self) -> list[str]:
        """The server's public keys in Base64: the one of today, then those that signed older manifests."""
        found = _mapping(self._json("GET", "/signing-key"), "public_key")
        retired = found.get("retired")
        return [str(found["public_key"]), *(str(key) for key in (retired if isinstance(retired, list) else []))]

    def logs(self, run_id: str) -> Document:
        """The run's build log and server log, for its owner."""
        return _mapping(self._json("GET", f"/runs/{_segment(run_id)}/logs"))

    def cancel(self, run_id: str) -> Document:
        """Ask for a run to stop."""
        return _mapping(self._json("POST", f"/runs/{_segment(run_id)}/cancel"))

    def download_suite(self, slug: str, name: str, destination: Path, max_bytes: int) -> None:
        """Write the archive of an open suite to `destination`; raises CliError when it is larger than `max_bytes`."""
        path = f"/competitions/{_segment(slug)}/suites/{_segment(name)}/archive"
        with self._stream("GET", path) as response, destination.open("wb") as file:
            for chunk in _capped(response, max_bytes):
                file.write(chunk)

    def _json(self, method: str, path: str, **options: Any) -> Any:
        with self._stream(method, path, **options) as response:
            body = b"".join(_capped(response, JSON_BYTES_MAX))
        try:
            return json.loads(body)
        except ValueError:
            raise _not_tiltyard(self.server) from None

    @contextmanager
    def _stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        try:
            with self._http.stream(method, path, **options) as response:
                if not response.is_success:
                    raise self._refusal(response, path)
                yield response
        except httpx.TimeoutException:
            raise _unreachable(self.server, "did not answer in time") from None
        except httpx.TransportError as error:
            raise _unreachable(self.server, f"cannot be reached ({error or type(error).__name__})") from None

    def _refusal(self, response: httpx.Response, path: str) -> CliError:
        detail = _detail(response)
        status = response.status_code
        if status == 401:
            return CliError(
                f"{self.server} asks who you are: no token, or one that is no longer valid. Make one at "
                f"{self.server}/account/tokens/ and run `tiltyard login --server {self.server}`.",
                ExitCode.REFUSED,
                status=status,
            )
        if status >= 500:
            message = f"{self.server} failed with status {status}. Try again; if it stays, tell the organisers."
            return CliError(f"{message} It said: {detail}" if detail else message, ExitCode.PLATFORM, status=status)
        if 300 <= status < 400:
            return CliError(
                f"{self.server} answers from another address ({response.headers.get('Location', '?')[:200]}). "
                "Give that server's address with --server.",
                ExitCode.USAGE,
                status=status,
            )
        if not detail:
            detail = f"{self.server} refused {path} with status {status} and no explanation. Is it a Tiltyard server?"
        return CliError(detail, _EXIT_CODES.get(status, ExitCode.REFUSED), status=status)


def _segment(text: str) -> str:
    if text in {"", ".", ".."}:
        raise CliError(f"{text!r} is no name of a competition, suite or run.")
    return quote(text, safe="")


def _capped(response: httpx.Response, max_bytes: int) -> Iterator[bytes]:
    total_bytes = 0
    for chunk in response.iter_bytes():
        total_bytes += len(chunk)
        if total_bytes > max_bytes:
            raise CliError(f"{response.url} sent more than {max_bytes} bytes: refused.", ExitCode.PLATFORM)
        yield chunk


def _detail(response: httpx.Response) -> str:
    """The server's own explanation, as text, or an empty text when it gave none that can be read."""
    try:
        values = json.loads(b"".join(_capped(response, 1 << 20)))
    except (ValueError, CliError, httpx.HTTPError):
        return ""
    detail = values.get("detail") if isinstance(values, dict) else None
    if isinstance(detail, list):  # the framework's own checks: [{"loc": [...], "msg": "..."}]
        parts = [f"{'.'.join(map(str, d.get('loc', [])))}: {d.get('msg')}" for d in detail if isinstance(d, dict)]
        return "; ".join(parts)[:_DETAIL_CHARACTERS_MAX]
    return detail[:_DETAIL_CHARACTERS_MAX] if isinstance(detail, str) else ""


def _mapping(value: Any, *required: str) -> Document:
    if not isinstance(value, dict) or any(value.get(name) is None for name in required):
        raise CliError(
            "The server's answer lacks what this version of the command needs. Update `tiltyard` or the server.",
            ExitCode.PLATFORM,
        )
    return value


def _mappings(value: Any) -> list[Document]:
    if isinstance(value, dict) and isinstance(value.get("items"), list):
        value = value["items"]
    return [_mapping(item) for item in value] if isinstance(value, list) else [_mapping(value)]


def _unreachable(server: str, what: str) -> CliError:
    return CliError(
        f"The server {server} {what}. Check that it runs, or name another with --server or TILTYARD_SERVER.",
        ExitCode.UNREACHABLE,
    )


def _not_tiltyard(server: str) -> CliError:
    return CliError(f"{server} answered something else than JSON. Is it a Tiltyard server?", ExitCode.PLATFORM)
