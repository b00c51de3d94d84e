"""A look-alike of a data set hub on loopback: as much of its API as `datasets.load_dataset("user/name")` asks for.

Files are given in memory. Every repository has one commit; nothing is stored apart (LFS, Xet), nothing is private.
Standard library only.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
Files = Mapping[str, bytes]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    repositories: Mapping[str, Files]
    log: list[str]

    def log_request(self, *_args: Any) -> None:
        """Say nothing; the paths are in `log`."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.log.append(f"{self.command} {path}")
        for name, files in self.repositories.items():
            api, raw = f"/api/datasets/{name}", f"/datasets/{name}/resolve/"
            if path == api or path.startswith((f"{api}/", raw)):
                if path.startswith(raw):
                    self._file(files, path.removeprefix(raw).partition("/")[2])
                else:
                    self._api(name, files, path.removeprefix(api), body)
                return
        self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def _api(self, name: str, files: Files, rest: str, body: bytes) -> None:
        action, _, place = rest.strip("/").partition("/")
        if action in ("", "revision"):
            siblings = [{"rfilename": file} for file in sorted(files)]
            info = {"_id": "1", "id": name, "sha": COMMIT, "private": False, "gated": False, "disabled": False}
            self._json({**info, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})
        elif action == "paths-info":
            asked = parse_qs(body.decode())["paths"] if not body.startswith(b"{") else json.loads(body)["paths"]
            self._json([_entry(files, file) for file in asked if file in files])
        elif action == "tree":
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("1", "true")
            found = _tree(files, place.partition("/")[2], recursive=recursive)
            if found:
                self._json(found)
            else:
                self._json({"error": "Not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        else:
            self._json({"error": "Not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def _file(self, files: Files, file: str) -> None:
        if file not in files:
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        content = files[file]
        etag = f'"{hashlib.sha256(content).hexdigest()[:40]}"'
        self._send(200, content, {"Content-Type": "application/octet-stream", "ETag": etag, "X-Repo-Commit": COMMIT})

    def _json(self, document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _tree(files: Files, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """What lies in a folder, "" being the topmost: its files and folders, or all below it."""
    start = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(files):
        first, *more = file.removeprefix(start).split("/") if file.startswith(start) else [""]
        if first and more:
            found[start + first] = {"type": "directory", "path": start + first, "size": 0, "oid": COMMIT}
        if first and (recursive or not more):
            found[file] = _entry(files, file)
    return list(found.values())


def _entry(files: Files, file: str) -> dict[str, Any]:
    oid = hashlib.sha1(files[file], usedforsecurity=False).hexdigest()
    return {"type": "file", "path": file, "size": len(files[file]), "oid": oid}


@contextmanager
def running_hub(repositories: Mapping[str, Files]) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories by `user/name`; yields the address for `HF_ENDPOINT`, and a list that fills with requests."""
    log: list[str] = []
    handler = type("Handler", (_Handler,), {"repositories": repositories, "log": log})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
