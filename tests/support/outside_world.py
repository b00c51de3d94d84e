"""Where hostile uploads are tried: a builder with small limits, the bare engine, and a service of the host."""

import http.server
import io
import ipaddress
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from images_for_tests import PYTHON_IMAGE, Builder, context, image_archive

from tiltyard_sandbox.defences import Defence
from tiltyard_sandbox.verdicts import Reason, SubmissionFault

FROM = f"FROM {PYTHON_IMAGE}\n"


@dataclass
class World:
    """An engine, a builder with small limits, a folder, and a service of the host that counts its visitors."""

    builder: Builder
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    service: str
    visits: list[str]
    made: list[str] = field(default_factory=list)  # names and ids of images that controls made

    @property
    def client(self) -> docker.DockerClient:
        return self.builder.client

    def pack(self, dockerfile: str, **files: bytes) -> Path:
        path = self.folder / f"{uuid.uuid4().hex}.tar.gz"
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            for name, content in context(dockerfile.encode(), **files).items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    def archive(self, *members: tuple[str, bytes, str], **options: Any) -> Path:
        return image_archive(self.folder / f"{uuid.uuid4().hex}.tar.gz", *members, **options)

    def refuses(self, attempt: Callable[[], Any], reason: Reason, says: str) -> None:
        with pytest.raises(SubmissionFault, match=says) as caught:
            attempt()
        assert caught.value.reason is reason

    def raw_load(self, archive: Path) -> list[Any]:
        """What the engine makes of an archive as it is."""
        with archive.open("rb") as file:
            loaded = self.client.images.load(file)
        self.made += [image.id for image in loaded]
        return list(loaded)

    def raw_build(self, dockerfile: str, files: dict[str, bytes] | None = None, **options: Any) -> tuple[Any, str]:
        """What the engine makes of a Dockerfile as it is, and the log."""
        with io.BytesIO() as tar:
            with tarfile.open(fileobj=tar, mode="w") as archive:
                for name, content in {"Dockerfile": dockerfile.encode(), **(files or {})}.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
            tar.seek(0)
            image, log = self.client.images.build(
                fileobj=tar, custom_context=True, rm=True, forcerm=True, labels={"tiltyard.test": "outside"}, **options
            )
        self.made.append(image.id)
        return image, "".join(str(line.get("stream", "")) for line in log)

    def shell(self, image: str, command: str) -> str:
        """The output of a command in an ordinary container without a network."""
        return str(
            self.client.containers.run(
                image,
                ["-c", command],
                entrypoint=["sh"],
                remove=True,
                network_mode="none",
                labels={"tiltyard.test": "outside"},
            ).decode()
        )


@contextmanager
def service_on(address: str) -> Iterator[tuple[str, list[str]]]:
    """A web server of the host at this address, as "host:port", and the paths it was asked for."""
    visits: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            visits.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"fetched")

        def log_message(self, *_: object) -> None:
            """Silence."""

    with http.server.HTTPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{address}:{server.server_address[1]}", visits
        finally:
            server.shutdown()
            thread.join()


def gateway_of(client: docker.DockerClient) -> str:
    """The host's address on the engine's usual network."""
    network = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    return str(network.get("Gateway") or next(ipaddress.ip_network(network["Subnet"]).hosts()))


@dataclass(frozen=True)
class Outside:
    """One attack; `control` is a reason where nobody shows it at work."""

    tries: str
    defence: Defence
    attack: Callable[[World], None]
    control: Callable[[World], None] | str
