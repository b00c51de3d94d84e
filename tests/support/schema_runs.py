"""schemathesis against a running site: every operation of its OpenAPI schema, with a token and without."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# Limits on callers are off: they would answer most of these questions with 429.
NO_LIMITS = {
    "TILTYARD_API_ADDRESS_RATE": "",
    "TILTYARD_API_CALLER_RATE": "",
    "TILTYARD_API_GUESSES_RATE": "",
    "TILTYARD_CHANGES_RATE": "",
    "TILTYARD_REFUSED_UPLOADS_MAX": "0",
    "TILTYARD_LOG_LEVEL": "ERROR",
}


@dataclass(frozen=True)
class SchemaRun:
    """How it ended, and what it printed."""

    returncode: int
    output: str
    report: dict[str, Any]

    @property
    def cases(self) -> int:
        return int(self.report["test_cases"]["generated"])

    @property
    def failures(self) -> int:
        return len(self.report["failures"])


def site_environment() -> dict[str, str]:
    """For a site that is asked everything: with the broker of the tests, where there is one."""
    redis = os.environ.get("TILTYARD_REDIS_URL")
    return NO_LIMITS | ({"TILTYARD_REDIS_URL": redis} if redis else {})


def ask_everything(url: str, token: str | None, scratch: Path, *, examples: int, seed: int) -> SchemaRun:
    """Ask `examples` random questions of each operation, beside those that the schema itself suggests."""
    report, schema = scratch / "schema-run.json", scratch / "openapi.json"
    answer = httpx.get(f"{url}/api/v1/openapi.json", timeout=120)  # the first request of all loads what others need
    schema.write_bytes(answer.raise_for_status().content)
    command = [sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run", str(schema), "--url", url]
    command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--seed", str(seed)]
    command += ["--max-examples", str(examples), "--continue-on-failure", "--request-timeout", "60", "--no-color"]
    command += ["--suppress-health-check", "all", "--warnings", "off"]
    command += ["--report", "json", "--report-json-path", str(report)]
    if "TILTYARD_REDIS_URL" not in os.environ:  # then the site is not well, and says so with 503
        command += ["--exclude-path", "/api/v1/health"]
    if token is not None:
        command += ["--header", f"Authorization: Bearer {token}"]
    ended = subprocess.run(
        command, cwd=scratch, capture_output=True, text=True, check=False, env=os.environ | {"NO_COLOR": "1"}
    )
    found = json.loads(report.read_text()) if report.exists() else {}
    return SchemaRun(ended.returncode, ended.stdout + ended.stderr, found)
