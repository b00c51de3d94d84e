"""Workers of one machine that fetch one image from a real registry: in turn, and without trace of whoever is killed."""

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest
from images_for_tests import PLAIN, PYTHON_IMAGE, Builder, Pack, context
from registry_server import push, registry_server

from tiltyard_sandbox.engine import connect
from tiltyard_sandbox.fetching import forget_fetched, note_fetched, turn_with
from tiltyard_sandbox.images import BuiltImage, remove_image
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.manifest import SubmissionManifest
from tiltyard_sandbox.pulls import pull_image
from tiltyard_sandbox.references import ImageReference, NamedImage
from tiltyard_sandbox.verdicts import Cancelled, InfraFault

REFERENCE = ImageReference("127.0.0.1:5000", "team/entry", "sha256:" + "a" * 64)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry_server(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def pushed(builder: Builder, pack: Pack, registry: str) -> list[str]:
    """One image by two names, which the engine does not have."""
    built = builder.build(pack(context(PLAIN + b'CMD ["true"]\n', x=uuid.uuid4().bytes * 100_000)))
    team = uuid.uuid4().hex
    kept = f"tiltyard-test/{team}:kept"  # else it would go with the first name that `push` takes away
    builder.client.images.get(built.image_id).tag(kept)
    references = [push(builder.client, built.image_id, registry, f"{team}/{name}") for name in ("one", "other")]
    for name in (*references, kept, built.image_id):
        _forget(builder.client, name)
    return references


def _forget(client: docker.DockerClient, name: str) -> None:
    try:
        client.images.remove(name, force=True)
    except docker.errors.ImageNotFound:
        return


def _is_there(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


def _fetch(
    client: docker.DockerClient,
    reference: str,
    *,
    scratch: Path | None = None,
    cancel: threading.Event | None = None,
    limits: Limits | None = None,
    log: list[str] | None = None,
) -> BuiltImage:
    manifest = SubmissionManifest("named", "none", "none", "Apache-2.0", image=reference)
    parsed = ImageReference.parse(reference)
    return pull_image(
        client,
        NamedImage(parsed, manifest),
        registries=[parsed.registry],
        limits=limits or Limits(build_s=60),
        on_log=([] if log is None else log).append,
        cancel=cancel or threading.Event(),
        owner="test",
        gauge_image=PYTHON_IMAGE,
        scratch=scratch,
    )


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize("names", [1, 2], ids=["one name", "two names"])
def test_workers_that_fetch_one_image_at_once_all_get_it(
    client: docker.DockerClient, pushed: list[str], tmp_path: Path, names: int
) -> None:
    workers, rounds = 3, 2
    start = threading.Barrier(workers)

    def work(number: int) -> None:
        scratch = tmp_path / f"scratch-{number}"
        scratch.mkdir()
        with closing(connect()) as own:
            for _ in range(rounds):
                start.wait(60)
                image = _fetch(own, pushed[number % names], scratch=scratch)
                assert image.is_ours
                ran = own.containers.run(image.image_id, ["python3", "-c", "print(40 + 2)"], remove=True)
                assert ran == b"42\n"
                remove_image(own, image.image_id)

    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work, number) for number in range(workers)]:
            done.result(timeout=200)
    assert [name for name in pushed if _is_there(client, name)] == []
    digest = ImageReference.parse(pushed[0]).digest
    left = [image.attrs["Id"] for image in client.images.list(all=True) if digest in str(image.attrs["RepoDigests"])]
    assert left == []


# It never gets further than to the moment in which the engine has the image by the registry's name.
WORKER = """
import sys, threading, time
from pathlib import Path
from tiltyard_sandbox import pulls
pulls._is_tagged = lambda *_: time.sleep(3600)
from tiltyard_sandbox.engine import connect
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.manifest import SubmissionManifest
from tiltyard_sandbox.pulls import pull_image
from tiltyard_sandbox.references import ImageReference, NamedImage
reference = ImageReference.parse(sys.argv[1])
named = NamedImage(reference, SubmissionManifest("named", "none", "none", "Apache-2.0", image=sys.argv[1]))
pull_image(connect(), named, registries=[reference.registry], limits=Limits(), on_log=print, cancel=threading.Event(),
           owner="test", gauge_image=None, scratch=Path(sys.argv[2]))
"""


@pytest.mark.docker
@pytest.mark.slow
def test_what_a_killed_worker_fetched_is_taken_away_and_holds_nobody_up(
    client: docker.DockerClient, pushed: list[str], tmp_path: Path
) -> None:
    dead, living = tmp_path / "dead", tmp_path / "living"
    for folder in (dead, living):
        folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", WORKER, pushed[0], str(dead)]) as worker:
        deadline = time.monotonic() + 60
        while not _is_there(client, pushed[0]):
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        worker.kill()
    image = _fetch(client, pushed[0], scratch=living)  # another attempt, which finds what the dead one left
    assert not image.is_ours, "it could be somebody's, so it stays"
    assert _is_there(client, pushed[0])
    assert not forget_fetched(client, living)
    assert forget_fetched(client, dead)
    assert not _is_there(client, pushed[0])
    assert not forget_fetched(client, dead)


@pytest.mark.docker
@pytest.mark.slow
def test_an_engine_that_lets_containerd_fetch_is_refused_in_words(registry: str) -> None:
    class Containerds(docker.DockerClient):
        """The real engine, but for what it says of its store."""

        def info(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return super().info(*args, **kwargs) | {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}

    log: list[str] = []
    with (
        closing(Containerds.from_env()) as client,
        pytest.raises(InfraFault, match="keeps images in containerd's store") as caught,
    ):
        _fetch(client, f"{registry}/team/entry@{REFERENCE.digest}", log=log)
    assert '"containerd-snapshotter": false' in caught.value.message  # what to do
    assert "let the competition name no registries" in caught.value.message
    assert log == [], "the registry was asked"


def test_who_waits_for_its_turn_can_be_cancelled_and_does_not_wait_for_ever(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    cancel = threading.Event()
    with turn_with(REFERENCE, first, cancel=cancel, wait_s=0):
        begin = time.monotonic()
        with (
            pytest.raises(InfraFault, match="Another worker has been at 127"),
            turn_with(REFERENCE, second, cancel=cancel, wait_s=0.5),
        ):
            pytest.fail("two at once")
        assert 0.5 <= time.monotonic() - begin < 5
        threading.Timer(0.2, cancel.set).start()
        with pytest.raises(Cancelled), turn_with(REFERENCE, second, cancel=cancel, wait_s=60):
            pytest.fail("two at once")
        assert time.monotonic() - begin < 5
        other = ImageReference("127.0.0.1:5000", "team/entry", "sha256:" + "b" * 64)
        with turn_with(other, second, cancel=threading.Event(), wait_s=0):
            """Another image waits for nobody."""
    with turn_with(REFERENCE, second, cancel=threading.Event(), wait_s=0):
        """And now it is the second one's turn."""


@pytest.mark.docker
@pytest.mark.parametrize("note", [PYTHON_IMAGE, "../etc/passwd", "", "\xff", json.dumps({"image": PYTHON_IMAGE})])
def test_a_note_that_names_no_digest_takes_nothing_away(client: docker.DockerClient, tmp_path: Path, note: str) -> None:
    note_fetched(REFERENCE, tmp_path)
    [path] = tmp_path.iterdir()
    path.write_text(note)
    assert not forget_fetched(client, tmp_path)
    assert _is_there(client, PYTHON_IMAGE)
