"""A Docker engine of a test's own, beside the machine's: it may be killed, started again, and given other options.

It has its own data, sockets and network namespace, so that nobody else's containers are on it.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest
from services_for_tests import services_script


@dataclass
class SecondEngine:
    """Where its files lie; `running` starts it there, as often as one likes."""

    root: Path
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"unix://{self.root}/docker.sock"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        services = services_script()
        socket = self.root / "docker.sock"
        # A killed engine's containerd dies with it, but while nobody has reaped it the next engine takes it for alive.
        (self.root / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)
        command = ["/usr/bin/env", *(f"{name}={value}" for name, value in self.environment.items())]
        command += [services.find_program("unshare"), "--net", services.find_program("dockerd"), "--host", self.url]
        for option, name in (("data-root", "data"), ("exec-root", "exec"), ("pidfile", "docker.pid")):
            command += [f"--{option}", f"{self.root}/{name}"]
        is_ready = lambda: socket.exists() and services.engine_answers(socket)  # noqa: E731
        with services.running([*command, *self.options], is_ready=is_ready, log_name="second-dockerd"):
            yield

    def fill(self, ordinary: docker.DockerClient, image: str) -> None:
        """Bring an image here from the machine's engine."""
        with closing(docker.DockerClient(base_url=self.url, timeout=120)) as client:
            client.images.load(b"".join(ordinary.images.get(image).save(named=image)))


@contextlib.contextmanager
def second_engine(*options: str, **environment: str) -> Iterator[SecondEngine]:
    """An engine that does not run yet, in a folder whose name is short: sockets lie in it."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a second engine")
    root = Path(tempfile.mkdtemp(prefix="engine-"))
    try:
        yield SecondEngine(root, options, environment)
    finally:
        shutil.rmtree(root, ignore_errors=True)
