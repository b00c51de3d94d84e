"""Whose fault a refusal of the engine is, and that no text of a participant passes for the engine's own."""

import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from tiltyard_sandbox import images
from tiltyard_sandbox.image_archive import ImageArchive, scan_layers
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.manifest import SubmissionManifest
from tiltyard_sandbox.verdicts import InfraFault, SandboxError, SubmissionFault

LOST = f"failed to get digest sha256:{64 * 'c'}: open /var/lib/docker/image/overlay2/c: no such file or directory"
FULL = "write /layer.tar: no space left on device"
VICTIM = "Loaded image ID: sha256:" + "a" * 64
FOLDER = {"Dockerfile": b"FROM plain\n", "tiltyard.yaml": b"name: a\nbase_model: b\ntraining_data: c\nlicence: d\n"}


@contextmanager
def answering(status: int, body: str) -> Iterator[docker.DockerClient]:
    """A client of an engine on the loopback that has every image and gives this one answer to whatever is posted."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_list = self.path.partition("?")[0].endswith("/json") and self.path.count("/") == 3
            self._answer(200, json.dumps([] if is_list else {"Id": "sha256:0", "Config": {}}))

        def do_POST(self) -> None:
            if "Content-Length" in self.headers:
                self.rfile.read(int(self.headers["Content-Length"]))
            else:
                while (size := int(self.rfile.readline().strip() or b"0", 16)) > 0:  # chunks
                    self.rfile.read(size + 2)
            self._answer(status, body)

        def _answer(self, code: int, text: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{server.server_port}", version="1.41")
        try:
            yield client
        finally:
            client.close()
            server.shutdown()
            thread.join()


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def saved_image(path: Path) -> Path:
    labels = {f"tiltyard.{name}": "x" for name in ("name", "base_model", "training_data", "licence")}
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["layer.tar"]}]
    files = {
        "layer.tar": b"\0" * 1024,
        "c.json": json.dumps({"config": {"Labels": labels}}).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    return packed(path, files)


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, json.dumps({"errorDetail": {}, "error": f"open /tmp/blobs/{VICTIM}: no such file"}), SubmissionFault),
        (200, json.dumps({"stream": f"{VICTIM}\n"}) + "\r\n" + json.dumps({"error": "bad layer"}), SubmissionFault),
        (200, VICTIM, InfraFault),
        (200, json.dumps({"error": FULL}), InfraFault),
        (500, json.dumps({"message": "driver failed"}), InfraFault),
        (400, json.dumps({"message": "not an image"}), SubmissionFault),
    ],
)
def test_an_error_is_an_error_whatever_it_quotes(
    status: int, body: str, fault: type[SandboxError], tmp_path: Path
) -> None:
    with answering(status, body) as client, pytest.raises(fault):
        images.load_image(
            client,
            saved_image(tmp_path / "i.tar"),
            limits=Limits(),
            on_log=print,
            cancel=threading.Event(),
            owner="test",
            gauge_image=None,
        )


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (500, json.dumps({"message": "layer store broken"}), InfraFault),
        (400, json.dumps({"message": "unknown instruction"}), SubmissionFault),
        (200, json.dumps({"error": f"failed to copy files: {FULL}"}), InfraFault),
        (200, json.dumps({"error": f"The command 'echo {FULL}' returned a non-zero code: 1"}), SubmissionFault),
        (200, json.dumps({"error": LOST}), InfraFault),
        (200, json.dumps({"error": "layer does not exist"}), InfraFault),
        (200, json.dumps({"error": f"COPY failed: {LOST}"}), SubmissionFault),
        (200, json.dumps({"error": f"The command '{LOST}' returned a non-zero code: 1"}), SubmissionFault),
    ],
)
def test_what_the_engine_lacks_is_not_the_participants_fault(
    status: int, body: str, fault: type[SandboxError], tmp_path: Path
) -> None:
    with answering(status, body) as client, pytest.raises(fault):
        images.build_image(
            client,
            packed(tmp_path / "c.tar", FOLDER),
            allowed_bases=["plain"],
            base_args={},
            limits=Limits(),
            on_log=print,
            cancel=threading.Event(),
            owner="test",
            gauge_image=None,
        )


def test_links_for_layers_that_only_lead_to_links_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "i.tar"
    with tarfile.open(path, "w") as archive:
        for name, target in (("one", "two"), ("two", "one")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    image = ImageArchive("c.json", "sha256:0", ("one", "two"), SubmissionManifest("x", "x", "x", "x"))
    with pytest.raises(SubmissionFault, match="lacks some of its layers"):
        scan_layers(path, image, 1 << 20)
