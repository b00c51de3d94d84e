"""The dependency audit tells apart: no known fault, a fault, and a database that did not answer."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

AUDIT = Path(__file__).resolve().parents[2] / "scripts" / "audit.py"
FAULT = {
    "id": "PYSEC-2026-1",
    "modified": "2026-01-01T00:00:00Z",
    "details": "It does something bad.",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
            "versions": ["1.0"],
        }
    ],
}


class Database(BaseHTTPRequestHandler):
    """As api.osv.dev answers: nothing is known of any package but leaky 1.0."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_leaky = (asked["package"]["name"], asked["version"]) == ("leaky", "1.0")
        body = json.dumps({"vulns": [FAULT]} if is_leaky else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Database) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def audit(tmp_path: Path, pinned: str, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "pinned.txt"
    path.write_text(pinned)
    command = [sys.executable, str(AUDIT), "--requirement", str(path), "--osv-url", url, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_fault(tmp_path: Path, database: str) -> None:
    done = audit(tmp_path, "sound==3.1\nleaky==2.0\n", database, "--offline-ok")
    assert done.returncode == 0, done.stderr
    assert "2 dependencies audited, 0 with known faults." in done.stdout


def test_a_fault_fails_also_where_no_network_would_not(tmp_path: Path, database: str) -> None:
    done = audit(tmp_path, "sound==3.1\nleaky==1.0\n", database, "--offline-ok")
    assert done.returncode == 1
    assert "leaky 1.0: PYSEC-2026-1 (fixed in: 2.0)" in done.stdout


@pytest.mark.parametrize(("options", "status"), [((), 2), (("--offline-ok",), 0)])
def test_no_answer_is_never_no_fault(tmp_path: Path, options: tuple[str, ...], status: int) -> None:
    done = audit(tmp_path, "sound==3.1\n", "http://127.0.0.1:1/v1/query", *options)
    assert done.returncode == status
    assert "NOT AUDITED" in done.stdout
    assert "with known faults" not in done.stdout
