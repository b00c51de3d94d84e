"""A pair on a real engine, reduced to what must hold: they meet, nobody's log grows without end, nobody stays."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import docker

from tiltyard_sandbox.defences import Defence
from tiltyard_sandbox.limits import Limits

PORT: Final = 8000
MEET_S: Final = 30.0
END_S: Final = 5.0
_POLL_S: Final = 0.05
# Floods its log beyond the limit, ignores every signal that can be, and then answers like a server.
_SERVER: Final = f"""
import http.server, signal, sys
for number in set(signal.Signals) - {{signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM}}:
    signal.signal(number, signal.SIG_IGN)
signal.alarm(300)  # should whoever attacks be killed meanwhile
for _ in range(int(sys.argv[1]) // 1000 * 8):
    print("x" * 999)
print("flooded", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"met")
http.server.HTTPServer(("127.0.0.1", {PORT}), Handler).serve_forever()
"""
_ASK: Final = f"""
import sys, time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
for attempt in range(200):
    try:
        print(opener.open("http://127.0.0.1:{PORT}/", timeout=2).read().decode())
        break
    except OSError as error:
        print(error, file=sys.stderr)
        time.sleep(0.1)
"""


@dataclass(frozen=True)
class Seen:
    """One thing about the pair."""

    name: str
    tries: str
    defence: str
    is_ok: bool
    saw: str


def attack_pair(client: docker.DockerClient, options: Mapping[str, Any], limits: Limits) -> list[Seen]:
    """What a hostile server and its asker show, with these options; both are removed. Raises one of ENGINE_ERRORS."""
    server = client.containers.create(
        **{**options, "entrypoint": ["python3", "-c", _SERVER, str(limits.log_bytes)], "command": []}
    )
    try:
        server.start()
        meeting = _meeting(client, options, server.id)
        log = _log(server, limits)
        ending = _ending(client, server)
    finally:
        if _exists(client, server.id):
            server.remove(force=True, v=True)
    return [meeting, log, ending]


def _meeting(client: docker.DockerClient, options: Mapping[str, Any], server_id: str | None) -> Seen:
    joined = {**options, "network_mode": f"container:{server_id}", "entrypoint": ["python3", "-I", "-c", _ASK]}
    asker = client.containers.create(**{**joined, "command": []})
    try:
        asker.start()
        deadline = time.monotonic() + MEET_S
        while asker.status != "exited" and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            asker.reload()
        has_met = asker.logs(stderr=False).strip() == b"met"
        saw = "it did" if has_met else f"it did not: {asker.logs(tail=1).decode(errors='replace').strip()[:200]}"
    finally:
        asker.remove(force=True, v=True)
    return Seen(
        "pair_meets", "have the evaluator reach the server, and nobody else", Defence.EMPTY_NETWORK, has_met, saw
    )


def _log(server: Any, limits: Limits) -> Seen:
    kept_bytes = len(server.logs())
    saw = f"{kept_bytes >> 10} KiB kept of {8 * limits.log_bytes >> 10}"
    return Seen("log_flood", "fill the disk with output", Defence.LOG_LIMIT, 0 < kept_bytes <= limits.log_bytes, saw)


def _ending(client: docker.DockerClient, server: Any) -> Seen:
    begin = time.monotonic()
    server.kill("SIGTERM")
    server.remove(force=True, v=True)
    took_s = time.monotonic() - begin
    is_gone = took_s < END_S and not _exists(client, server.id)
    return Seen(
        "ignores_signals", "live on by ignoring signals", Defence.SIGKILL, is_gone, f"gone after {took_s:.1f} s"
    )


def _exists(client: docker.DockerClient, container_id: Any) -> bool:
    try:
        client.api.inspect_container(container_id)
    except docker.errors.NotFound:
        return False
    return True
