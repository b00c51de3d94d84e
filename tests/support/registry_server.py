"""A registry of images of its own on loopback: Debian's docker-registry, which engines speak to without TLS there."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx


@contextlib.contextmanager
def registry_server(directory: Path) -> Iterator[str]:
    """Its host and port."""
    program = shutil.which("docker-registry")
    assert program is not None, "docker-registry is missing: scripts/setup.sh test installs it"
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    configuration = directory / "registry.yml"
    configuration.write_text(
        f"version: 0.1\nlog: {{level: warn}}\nhttp: {{addr: '{address}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}/images}}}}\n"
    )
    with (directory / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(configuration)],
            stdout=log,
            stderr=log,
            env=os.environ | {"OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://{address}/v2/", timeout=5)
                break
            assert process.poll() is None, "the registry has ended"
            assert time.monotonic() < deadline, "the registry does not answer"
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def push(client: docker.DockerClient, image_id: str, registry: str, name: str) -> str:
    """Send an engine's image there, and take the name away again; the reference by its digest."""
    repository = f"{registry}/{name}"
    client.images.get(image_id).tag(repository, "pushed")
    try:
        for told in client.api.push(repository, tag="pushed", stream=True, decode=True):
            assert "error" not in told, told
            if digest := told.get("aux", {}).get("Digest"):
                return f"{repository}@{digest}"
    finally:
        client.images.remove(f"{repository}:pushed")
    raise AssertionError("the engine names no digest")
