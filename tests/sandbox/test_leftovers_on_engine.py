"""What the engine still makes after a build was cut off, and what a dead process has left: found, and swept."""

import io
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
from docker.types import LogConfig
from images_for_tests import MANIFEST, PYTHON_IMAGE

from tiltyard_sandbox import images
from tiltyard_sandbox.leftovers import FIRST_STEP_S, find_leftovers, remove_first_steps, remove_leftovers
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.owners import BUILD_LABEL, GAUGE_LABEL, OWNER_CHARS_MAX, RUN_TAG, named_by, owner_of
from tiltyard_sandbox.verdicts import Cancelled

pytestmark = [pytest.mark.docker, pytest.mark.slow]

BIG_BYTES = 600 << 20  # takes the engine a second or two to copy


@pytest.fixture
def site(client: docker.DockerClient) -> Iterator[str]:
    """A site of the test's own, of which nothing stays."""
    one = uuid.uuid4().hex[:12]
    yield one
    remove_leftovers(client, find_leftovers(client, one))
    assert find_leftovers(client, one) == []


def pack_with_big_file(path: Path) -> Path:
    dockerfile = f"FROM {PYTHON_IMAGE}\nCOPY big /big\nRUN sleep 600\n".encode()
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in (("Dockerfile", dockerfile), ("tiltyard.yaml", MANIFEST), ("big", bytes(BIG_BYTES))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_a_copy_that_was_cut_off_leaves_a_layer_that_is_swept(
    client: docker.DockerClient, site: str, tmp_path: Path, limits: Limits
) -> None:
    cancel = threading.Event()

    def cancel_in_copy(line: str) -> None:
        if ": COPY " in line:
            cancel.set()

    with pytest.raises(Cancelled):
        images.build_image(
            client,
            pack_with_big_file(tmp_path / "big.tar.gz"),
            allowed_bases=[PYTHON_IMAGE],
            base_args={},
            limits=limits,
            on_log=cancel_in_copy,
            cancel=cancel,
            owner=f"{site}.run.1",
            gauge_image=None,
        )
    deadline = time.monotonic() + 60
    while not (left := find_leftovers(client, site)):
        assert time.monotonic() < deadline, "the engine made no layer of the COPY"
        time.sleep(0.1)
    assert {owner for one in left for owner in one.owners} == {f"{site}.run.1"}
    assert remove_leftovers(client, left) == len(left)
    assert find_leftovers(client, site) == []


def test_the_steps_of_a_build_are_found_while_they_run_whatever_the_file_sets(
    client: docker.DockerClient, site: str, tmp_path: Path, limits: Limits
) -> None:
    """The label's name comes as a build argument, which the file can see and must not be able to change."""
    forged = named_by("another-site.run.1")
    dockerfile = (
        f"ARG TILTYARD_BUILD={forged}\nFROM {PYTHON_IMAGE} AS a\nENV TILTYARD_BUILD={forged}\nARG X=tiltyard\n"
        f"LABEL ${{X}}.role=gauge ${{X}}.build.{forged}=1\nFROM a\nRUN echo running; sleep 600\n"
    )
    path = tmp_path / "forging.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("Dockerfile", dockerfile.encode()), ("tiltyard.yaml", MANIFEST)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    cancel = threading.Event()
    found = []

    def look(line: str) -> None:
        if line == "running":
            found.extend(find_leftovers(client, site))
            cancel.set()

    with pytest.raises(Cancelled):
        images.build_image(
            client,
            path,
            allowed_bases=[PYTHON_IMAGE],
            base_args={},
            limits=limits,
            on_log=look,
            cancel=cancel,
            owner=f"{site}.run.1",
            gauge_image=None,
        )
    assert [one.owners for one in found if one.is_container] == [{f"{site}.run.1"}]
    assert {owner for one in found for owner in one.owners} == {f"{site}.run.1"}


Labelled = Callable[[dict[str, str]], str]


@pytest.fixture
def labelled(client: docker.DockerClient) -> Iterator[Labelled]:
    """Make images without a name that have these labels."""
    made = []

    def make(labels: dict[str, str]) -> str:
        changes = [f"LABEL {name}={value}" for name, value in labels.items()]
        answer = client.api.import_image_from_data(b"\0" * 1024, changes=changes)
        made.append("sha256:" + answer.strip().rpartition("sha256:")[2].partition('"')[0])
        return made[-1]

    yield make
    for image_id in made:
        client.api.remove_image(image_id, force=True)


def test_only_what_has_no_other_owner_is_found(client: docker.DockerClient, site: str, labelled: Labelled) -> None:
    ours, theirs = named_by(f"{site}.run.1"), named_by("another-site.run.1")
    labelled({f"{BUILD_LABEL}{theirs}": "1"})
    labelled({f"{BUILD_LABEL}{ours}": "1", f"{BUILD_LABEL}{theirs}": "1"})
    labelled({"unrelated": "1"})
    mine = labelled({f"{BUILD_LABEL}{ours}": "1", f"{BUILD_LABEL}{named_by(f'{site}.run.2')}": "1"})
    (found,) = find_leftovers(client, site)
    assert (found.reference, found.owners) == (mine, {f"{site}.run.1", f"{site}.run.2"})


def test_a_tag_goes_and_the_image_that_others_name_stays(client: docker.DockerClient, site: str) -> None:
    tag = f"{RUN_TAG}{named_by(f'{site}.run.1')}"
    client.images.get(PYTHON_IMAGE).tag(tag)
    (found,) = find_leftovers(client, site)
    assert (found.reference, found.is_container) == (tag, False)
    remove_leftovers(client, [found])
    assert tag not in client.images.get(PYTHON_IMAGE).tags


def test_gauges_and_steps_are_found_and_what_runs_their_image_is_not(client: docker.DockerClient, site: str) -> None:
    name = named_by(f"{site}.run.1")
    gauge = {GAUGE_LABEL: name, "tiltyard.role": "gauge"}
    step = {f"{BUILD_LABEL}{name}": "1"}
    posing = {**step, "tiltyard.role": "submission", f"{BUILD_LABEL}somebody-else": "1"}
    without_log = LogConfig(type="none")  # which is what the engine's builder gives its steps
    made = [
        client.containers.create(PYTHON_IMAGE, labels=gauge),
        client.containers.create(PYTHON_IMAGE, labels=step, log_config=without_log),
        client.containers.create(PYTHON_IMAGE, labels=posing, log_config=without_log),
        client.containers.create(PYTHON_IMAGE, labels={**step, "tiltyard.role": "submission"}),
        client.containers.create(PYTHON_IMAGE, labels=step),  # an operator's, to look into the image
    ]
    try:
        found = find_leftovers(client, site)
        assert {one.reference for one in found} == {one.id for one in made[:3]}
        assert remove_leftovers(client, found) == 3
        assert remove_leftovers(client, found) == 0  # somebody else was quicker
        assert find_leftovers(client, site) == []
    finally:
        for container in client.containers.list(all=True, filters={"id": [one.id for one in made]}):
            container.remove(force=True)


def test_an_owner_is_read_from_a_name_and_must_be_one() -> None:
    assert owner_of(named_by("site.run.1")) == "site.run.1"
    for nothing in ("nothing", "site.run.1", "site.run.1.0", f"..{'0' * 32}", f"site.run.1.{'0' * 31}x"):
        assert owner_of(nothing) == ""
    for bad in ("", "Upper", "a..b", "a.", "a b", "a" * (OWNER_CHARS_MAX + 1)):
        with pytest.raises(ValueError, match="is no owner"):
            named_by(bad)


def test_what_a_build_made_before_it_had_a_label_goes_after_an_hour(
    client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*steps: str) -> str:
        lines = "\n".join([f"FROM {PYTHON_IMAGE}", *steps]).encode()
        image, _ = client.images.build(fileobj=io.BytesIO(lines), nocache=True, rm=True)
        return str(image.id)

    first_step, another = made("ARG TILTYARD_BUILD"), made("ARG TILTYARD_BUILD", "ENV NOT_OURS=1")
    try:
        remove_first_steps(client)
        assert client.images.get(first_step), "its build may be under way"
        later = time.time() + FIRST_STEP_S + 60
        monkeypatch.setattr("tiltyard_sandbox.leftovers.time", SimpleNamespace(time=lambda: later))
        assert remove_first_steps(client) >= 1
        with pytest.raises(docker.errors.ImageNotFound):
            client.images.get(first_step)
        assert client.images.get(another)
    finally:
        client.images.remove(another)


def test_a_container_of_a_build_that_had_no_label_yet_goes_as_well(
    client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the engine is killed between a step's container and its layer."""
    lines = f"FROM {PYTHON_IMAGE}\nARG TILTYARD_BUILD\n".encode()
    before = {one["Id"] for one in client.api.containers(all=True)}
    image, _ = client.images.build(fileobj=io.BytesIO(lines), nocache=True, rm=False)
    (left,) = {one["Id"] for one in client.api.containers(all=True)} - before
    command = client.api.inspect_container(left)["Config"]["Cmd"]
    posing = client.containers.create(PYTHON_IMAGE, command=command)  # with a log: no builder made it
    try:
        remove_first_steps(client)
        assert client.containers.get(left), "its build may be under way"
        later = time.time() + FIRST_STEP_S + 60
        monkeypatch.setattr("tiltyard_sandbox.leftovers.time", SimpleNamespace(time=lambda: later))
        assert remove_first_steps(client) >= 2
        for gone in (lambda: client.containers.get(left), lambda: client.images.get(str(image.id))):
            with pytest.raises(docker.errors.NotFound):
                gone()
        assert client.containers.get(str(posing.id))
    finally:
        posing.remove(force=True)
