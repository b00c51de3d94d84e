"""A Docker engine of the benchmark's own, which may be killed, with the images that its runs need.

It has its own data, sockets and network namespace beside those of the machine's ordinary engine. What a killed one
leaves mounted or running, the next one under the same folder takes over or ends; the last is asked to stop.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
from system import REPOSITORY, Part, services

PYTHON_IMAGE = "tiltyard/python:3.11"
EVALUATOR_IMAGE = "chaos/evaluator:played"
STOP_S = 40.0


class Engine:
    """The engine as a part of the site, and a client of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "engine"
        self._directory.mkdir()
        self._socket = self._directory / "docker.sock"
        self.host = f"unix://{self._socket}"
        # A killed engine's containerd dies with it, but while nobody has reaped it the next engine takes it for alive.
        forget = ["/bin/sh", "-c", 'rm -f "$0" && exec "$@"', str(self._directory / "exec/containerd/containerd.pid")]
        command = [*forget, services.find_program("unshare"), "--net", services.find_program("dockerd")]
        for option, name in (("data-root", "data"), ("exec-root", "exec"), ("pidfile", "docker.pid")):
            command += [f"--{option}", str(self._directory / name)]
        command += ["--host", self.host, "--log-level", "warn"]
        self.part = Part("engine", command, directory, is_ready=lambda: services.engine_answers(self._socket))

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.host, timeout=60)

    def fill(self) -> None:
        """Bring the base image here, from the ordinary engine where that has it, and build the evaluator on it."""
        with closing(self.client()) as client:
            if not _copied(client):
                script = [sys.executable, str(REPOSITORY / "scripts" / "base_images.py"), "--only-python"]
                subprocess.run(script, check=True, env=os.environ | {"DOCKER_HOST": self.host}, stdout=sys.stderr)
            _build_evaluator(client)

    def stop(self) -> None:
        """End its containers, then itself, and take away what it had mounted."""
        if self.part.pid is None:
            self.part.start(wait=True)  # a killed one has left containers that only an engine can end
        self.part.ask_to_stop(STOP_S)
        inside = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for point in sorted((one for one in inside if one.startswith(f"{self._directory}/")), reverse=True):
            subprocess.run([services.find_program("umount"), "--lazy", point], check=False)
        shutil.rmtree(self._directory, ignore_errors=True)

    def containers(self, role: str) -> list[Any]:
        """Those of this role that run now."""
        with closing(self.client()) as client:
            return list(client.containers.list(filters={"label": f"tiltyard.role={role}"}, ignore_removed=True))

    def left(self) -> list[str]:
        """Every container, and every image beside the two above, by name or id."""
        with closing(self.client()) as client:
            kept = [str(client.images.get(name).id) for name in (PYTHON_IMAGE, EVALUATOR_IMAGE)]
            ours = {layer for one in kept for layer in _parents(client, one)}
            images = [str(image.id) for image in client.images.list(all=True)]
            return [one.name for one in client.containers.list(all=True)] + [one for one in images if one not in ours]


def _parents(client: docker.DockerClient, image_id: str) -> list[str]:
    found = []
    while image_id:
        found.append(image_id)
        image_id = str(client.images.get(image_id).attrs.get("Parent") or "")
    return found


def _copied(client: docker.DockerClient) -> bool:
    """Whether the machine's ordinary engine had the base image to give."""
    try:
        with closing(docker.DockerClient(base_url=f"unix://{services.DEFAULT_DOCKER_SOCKET}", timeout=60)) as ordinary:
            client.images.load(b"".join(ordinary.images.get(PYTHON_IMAGE).save(named=PYTHON_IMAGE)))
    except docker.errors.DockerException:
        return False
    return True


def _build_evaluator(client: docker.DockerClient) -> None:
    from tiltyard_eval.source import SOURCE_LABEL, source_sha256  # noqa: PLC0415 - the path is set by now

    # The label says that the worker may use it as the evaluator of its own version.
    lines = [
        f"FROM {PYTHON_IMAGE}",
        "COPY played_evaluator.py /",
        f"LABEL {SOURCE_LABEL}={source_sha256()}",
        'ENTRYPOINT ["python3", "/played_evaluator.py"]',
    ]
    program = Path(__file__).with_name("played_evaluator.py").read_bytes()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, content in (("Dockerfile", "\n".join(lines).encode()), ("played_evaluator.py", program)):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), 0o644, int(time.time())
            archive.addfile(info, io.BytesIO(content))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=EVALUATOR_IMAGE, rm=True)
