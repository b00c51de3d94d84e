"""A real engine, the bare Python image, and ways to pack and build small submissions."""

import io
import subprocess
import sys
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from images_for_tests import MANIFEST, Builder
from pairs_for_tests import PYTHON_IMAGE, Runner

from tiltyard_sandbox import engine, images
from tiltyard_sandbox.limits import GIB, MIB, Limits
from tiltyard_sandbox.pair import sweep

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = b'ARG BASE=tiltyard/python:3.11\nFROM ${BASE}\nCOPY server.py /server.py\nCMD ["python3", "/server.py"]\n'

PackTar = Callable[..., Path]


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """The engine, with the bare Python image on it."""
    engine_client = engine.connect()
    try:
        engine_client.images.get(PYTHON_IMAGE)
    except docker.errors.ImageNotFound:
        script = REPOSITORY / "scripts" / "base_images.py"
        subprocess.run([sys.executable, str(script), "--only-python"], check=True)
    yield engine_client
    engine_client.close()


@pytest.fixture
def limits() -> Limits:
    """Small limits, which tests replace field by field."""
    return Limits(
        memory_bytes=256 * MIB,
        cpus=1.0,
        pids=64,
        tmpfs_bytes=16 * MIB,
        tmpfs_inodes=256,
        shm_bytes=8 * MIB,
        log_bytes=128 * 1024,
        build_s=60,
        start_s=15,
        evaluate_s=30,
        image_bytes_max=1 * GIB,
    )


@pytest.fixture
def pack(tmp_path: Path) -> PackTar:
    """Write a .tar.gz of the given files; names are paths, values contents."""

    def write(files: dict[str, bytes], name: str = "upload.tar.gz") -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w:gz") as archive:
            for file_name, content in files.items():
                info = tarfile.TarInfo(file_name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def build(client: docker.DockerClient, pack: PackTar, limits: Limits) -> Iterator[Callable[..., str]]:
    """Build a submission from a server's source (and, if need be, a Dockerfile); images are removed afterwards."""
    made: list[str] = []

    def run(server: str, dockerfile: bytes = DOCKERFILE) -> str:
        # The name makes each image the test's own, so that removing it takes nothing from another test.
        manifest = MANIFEST.replace(b"probe", uuid.uuid4().hex.encode())
        archive = pack({"Dockerfile": dockerfile, "tiltyard.yaml": manifest, "server.py": server.encode()})
        built = images.build_image(
            client,
            archive,
            allowed_bases=[PYTHON_IMAGE],
            base_args={},
            limits=limits,
            on_log=lambda _: None,
            cancel=threading.Event(),
            owner="test",
            gauge_image=None,
        )
        made.append(built.image_id)
        return built.image_id

    yield run
    for image_id in made:
        images.remove_image(client, image_id)


@pytest.fixture
def runner(client: docker.DockerClient, tmp_path: Path, limits: Limits) -> Iterator[Runner]:
    """A runner whose containers are all gone at the end, whatever the test did."""
    one = Runner(client, tmp_path, limits)
    yield one
    left = [container.id for container in one.containers()]
    sweep(client, one.labels)
    assert left == []


@pytest.fixture
def builder(client: docker.DockerClient, limits: Limits) -> Iterator[Builder]:
    one = Builder(client, limits)
    yield one
    for image_id in set(one.made):
        images.remove_image(client, image_id)
