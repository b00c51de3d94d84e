"""Pairs of containers for tests: programs to run in them, and a runner that labels and remembers."""

import dataclasses
import threading
import uuid
from pathlib import Path
from typing import Any

import docker

from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.pair import PairOutcome, run_pair

PYTHON_IMAGE = "tiltyard/python:3.11"
SERVER = """
import http.server, os
print("serving", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello")
http.server.HTTPServer(("127.0.0.1", int(os.environ["TILTYARD_PORT"])), Handler).serve_forever()
"""
ASK = """
import time, urllib.request
for attempt in range(100):
    try:
        body = urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=5).read()
        break
    except OSError:
        time.sleep(0.1)
open("/results/result.json", "wb").write(body)
print("asked", flush=True)
"""
WAIT = "import time; time.sleep(3600)"
GIVE_UP = "import sys, time; time.sleep(2); sys.exit(2)"


class Runner:
    """Runs pairs under labels of its own, and keeps what they printed."""

    def __init__(self, client: docker.DockerClient, folder: Path, limits: Limits) -> None:
        self.client = client
        self.limits = limits
        self.labels = {"tiltyard.run": f"test-{uuid.uuid4().hex}", "tiltyard.attempt": "1"}
        self.evaluator_lines: list[str] = []
        self.server_lines: list[str] = []
        self.cancel = threading.Event()
        self.suite = folder / "suite"
        self.results = folder / "results"
        self.suite.mkdir(mode=0o755)
        self.results.mkdir(mode=0o700)
        (self.suite / "suite.yaml").write_text("name: test\n")
        for parent in (folder, self.suite):
            parent.chmod(0o755)
        (self.suite / "suite.yaml").chmod(0o644)

    def __call__(
        self, image: str, evaluator: str = ASK, *, evaluator_image: str = PYTHON_IMAGE, **changes: Any
    ) -> PairOutcome:
        return run_pair(
            self.client,
            submission_image=image,
            evaluator_image=evaluator_image,
            evaluator_command=["python3", "-c", evaluator],
            suite_dir=self.suite,
            results_dir=self.results,
            limits=dataclasses.replace(self.limits, **changes),
            run_labels=self.labels,
            on_evaluator_line=self.evaluator_lines.append,
            on_server_log=self.server_lines.append,
            cancel=self.cancel,
        )

    def containers(self) -> list[Any]:
        label = f"tiltyard.run={self.labels['tiltyard.run']}"
        return list(self.client.containers.list(all=True, filters={"label": label}, ignore_removed=True))
