"""Named images from a real registry, by whole worker processes: two that want the same one at once."""

import hashlib
import io
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import tiny_server
import yaml
from bundles_for_tests import write_bundle
from own_images import make_own_images
from registry_server import push, registry_server
from uploads_for_tests import MANIFEST
from worker_system import INSTANCE, System, until

from tiltyard_sandbox.leftovers import find_leftovers

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.slow]

BASE = "tiltyard/python:3.11"
OVER = {"scored", "failed", "cancelled"}
SUBMIT = """
import shutil, sys, django
django.setup()
from pathlib import Path
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone
from tiltyard.accounts.models import User
from tiltyard.competitions.bundle import import_bundle
from tiltyard.submissions.intake import accept_upload
call_command("migrate", verbosity=0)
competition = import_bundle(Path(sys.argv[1]), secrets_dir=settings.SECRETS_DIR)
for name in ("ada", "bob"):
    owner = User.objects.create_user(name, f"{name}@example.org", "correct horse battery")
    path = Path(shutil.copy(sys.argv[2], Path(sys.argv[1]) / f"{name}.yaml"))
    accept_upload(owner=owner, competition=competition, track=competition.tracks.get(), path=path,
                  filename="tiltyard.yaml", now=timezone.now())
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "registry").mkdir()
    with registry_server(tmp_path / "registry") as address:
        yield address


@pytest.fixture
def reference(docker_client: docker.DockerClient, registry: str) -> str:
    """The tiny server's image, in the registry alone; no other has its content."""
    make_own_images()
    program = Path(tiny_server.__file__).read_bytes() + f"\n# {uuid.uuid4()}\n".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("server.py")
        info.size, info.mode = len(program), 0o644
        archive.addfile(info, io.BytesIO(program))
    container = docker_client.containers.create(BASE)
    container.put_archive("/opt", packed.getvalue())
    image = str(container.commit(conf={"Cmd": ["python3", "/opt/server.py"]}).id)
    container.remove()
    found = push(docker_client, image, registry, "team/tiny")
    for name in (found, image):
        try:
            docker_client.images.remove(name, force=True)
        except docker.errors.ImageNotFound:
            continue
    return found


@pytest.fixture
def system(tmp_path: Path, redis_url: str) -> Iterator[System]:
    made = System(tmp_path, redis_url)
    yield made
    made.stop()


def test_two_workers_that_fetch_one_image_at_once_score_it_both(
    system: System, reference: str, registry: str, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    upload = tmp_path / "tiltyard.yaml"
    upload.write_text(yaml.safe_dump(MANIFEST | {"image": reference}))
    bundle = write_bundle(tmp_path / "bundle", registries=[registry])
    workers = [system.worker("cpu", "--loglevel", "INFO") for _ in range(2)]
    until(system, lambda: system.logs().count(" ready.") == 2)
    system.python("-c", SUBMIT, str(bundle), str(upload))  # each hears of one
    until(system, lambda: all(state in OVER for state, _ in system.runs()))
    assert system.runs() == [("scored", 1), ("scored", 1)], system.logs()
    until(system, lambda: _left(docker_client, reference) == [])
    assert [worker.poll() for worker in workers] == [None, None]


def _left(client: docker.DockerClient, reference: str) -> list[str]:
    """What the engine still has of this site, and of the image by any name."""
    site = hashlib.sha256(INSTANCE.encode()).hexdigest()[:12]
    digest = reference.partition("@")[2]
    images = [image for image in client.images.list(all=True) if digest in str(image.attrs["RepoDigests"])]
    return [one.reference for one in find_leftovers(client, site)] + [str(image.id) for image in images]
