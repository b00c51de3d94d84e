"""Building on a real engine: nothing is pulled, bounds hold, and nothing but the image stays. See the attacks too."""

import threading
import time
import uuid
from typing import Any

import docker
import pytest
from images_for_tests import PLAIN, PYTHON_IMAGE, Builder, Pack, context

from tiltyard_sandbox import images
from tiltyard_sandbox.limits import MIB, Limits
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason, SubmissionFault

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def test_a_build_makes_an_image_with_the_manifest_as_labels(builder: Builder, pack: Pack) -> None:
    built = builder.build(pack(context(PLAIN + b"RUN echo built by $(id -u)\n", x=b"1")))
    image = builder.client.images.get(built.image_id)
    assert image.labels["tiltyard.name"] == "probe"
    assert image.tags == []
    assert built.manifest.licence == "Apache-2.0"
    assert "built by 0" in builder.log


def test_a_failing_build_shows_the_end_of_its_log(builder: Builder, pack: Pack) -> None:
    dockerfile = b"FROM tiltyard/python:3.11\nRUN echo first && python3 -c 'import no_such_module'\n"
    with pytest.raises(SubmissionFault) as caught:
        builder.build(pack(context(dockerfile)))
    assert caught.value.reason is Reason.BUILD_FAILED
    assert "No module named 'no_such_module'" in caught.value.message
    assert "returned a non-zero code: 1" in caught.value.message


def test_a_foreign_base_is_refused_before_the_engine_is_asked(
    builder: Builder, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the engine was asked")

    monkeypatch.setattr(builder.client.api, "send", refuse)
    for line in (b"FROM alpine", b"FROM tiltyard/python:3.11\nCOPY --from=alpine / /"):
        with pytest.raises(SubmissionFault, match="'alpine' is not one of the competition's"):
            builder.build(pack(context(line)))


def test_a_base_that_is_missing_here_is_ours(client: docker.DockerClient, pack: Pack, limits: Limits) -> None:
    with pytest.raises(InfraFault, match="tiltyard/absent:1 is not on this machine"):
        images.build_image(
            client,
            pack(context(b"FROM tiltyard/absent:1\n")),
            allowed_bases=["tiltyard/absent:1"],
            base_args={},
            limits=limits,
            on_log=print,
            cancel=threading.Event(),
            owner="test",
            gauge_image=PYTHON_IMAGE,
        )


def test_a_build_is_stopped_at_its_deadline(builder: Builder, pack: Pack) -> None:
    begin = time.monotonic()
    with pytest.raises(SubmissionFault, match="longer than 3 s"):
        builder.build(pack(context(b"FROM tiltyard/python:3.11\nRUN echo deadline; sleep 600\n")), build_s=3.0)
    assert time.monotonic() - begin < 30
    assert_no_container_runs(builder.client, "echo deadline")


def test_a_cancelled_build_stops(builder: Builder, pack: Pack) -> None:
    timer = threading.Timer(2.0, builder.cancel.set)
    timer.start()
    with pytest.raises(Cancelled):
        builder.build(pack(context(b"FROM tiltyard/python:3.11\nRUN echo cancelled; sleep 600\n")))
    assert_no_container_runs(builder.client, "echo cancelled")


def assert_no_container_runs(client: docker.DockerClient, command: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        running = client.containers.list(ignore_removed=True)
        commands = [" ".join(one.attrs["Config"]["Cmd"] or []) for one in running]
        if not any(command in text for text in commands):
            return
        time.sleep(0.2)
    pytest.fail(f"a container still runs {command!r}")


def test_the_build_log_is_capped_and_clean(builder: Builder, pack: Pack) -> None:
    code = b"import sys; print(chr(27) + '[2Jcleared'); [print('x' * 99) for _ in range(5000)]"
    dockerfile = b'FROM tiltyard/python:3.11\nRUN python3 -c "' + code + b'"\n'
    builder.build(pack(context(dockerfile)))
    assert sum(map(len, builder.log)) < builder.limits.log_bytes + 200
    assert not any("\x1b" in line for line in builder.log)
    assert any("the rest is left out" in line for line in builder.log)


def test_an_image_over_the_size_limit_is_rejected_and_removed(builder: Builder, pack: Pack) -> None:
    before = {image.id for image in builder.client.images.list()}
    with pytest.raises(SubmissionFault, match="at most 33554432 are allowed"):
        builder.build(pack(context(PLAIN, x=b"too large")), image_bytes_max=32 * MIB)
    assert {image.id for image in builder.client.images.list()} <= before


def test_a_build_that_fills_the_disk_is_stopped(builder: Builder, pack: Pack) -> None:
    dockerfile = b"FROM tiltyard/python:3.11\nRUN echo filling; dd if=/dev/zero of=/x bs=1M count=180; rm /x; "
    fill = b"for i in $(seq 9); do dd if=/dev/zero of=/x$i bs=1M count=180; done; sleep 600\n"
    with pytest.raises(SubmissionFault, match="wrote more than an image may hold"):
        builder.build(pack(context(dockerfile + fill)), image_bytes_max=200 * MIB)
    assert_no_container_runs(builder.client, "echo filling")


def test_a_step_that_names_another_container_is_measured_all_the_same(builder: Builder, pack: Pack) -> None:
    dockerfile = b"FROM tiltyard/python:3.11\nRUN printf ' ---> Running in 000000000000\\n'; sleep 1; "
    fill = (
        b"printf ' ---> Running in 000000000001\\n'; for i in 1 2; do dd if=/dev/zero of=/x$i bs=1M count=120; done; "
    )
    with pytest.raises(SubmissionFault, match="wrote more than an image may hold"):
        builder.build(pack(context(dockerfile + fill + b"sleep 600\n")), image_bytes_max=200 * MIB)


def test_what_several_steps_write_is_summed(builder: Builder, pack: Pack) -> None:
    mark = uuid.uuid4().hex
    step = b"RUN dd if=/dev/zero of=/x bs=1M count=90; sync\nRUN rm /x; sleep 2\n"
    dockerfile = f"FROM tiltyard/python:3.11\nLABEL {mark}=1\n".encode() + 3 * step
    with pytest.raises(SubmissionFault, match="wrote more than an image may hold"):
        builder.build(pack(context(dockerfile)), image_bytes_max=200 * MIB)
    assert images_with(builder.client, mark) == []


def images_with(client: docker.DockerClient, label: str) -> list[Any]:
    return list(client.api.images(all=True, filters={"label": label}))


@pytest.mark.parametrize("last", [b"RUN false\n", b"RUN sleep 600\n"], ids=["failed", "cut off"])
def test_a_build_that_fails_leaves_no_layers(builder: Builder, pack: Pack, last: bytes) -> None:
    mark = uuid.uuid4().hex
    dockerfile = f"FROM tiltyard/python:3.11 AS a\nLABEL {mark}=1\nRUN echo x > /x\nFROM a\nCOPY --from=0 /x /y\n"
    with pytest.raises(SubmissionFault):
        builder.build(pack(context(dockerfile.encode() + last)), build_s=5.0)
    assert images_with(builder.client, mark) == []


def test_a_build_leaves_its_image_and_no_other_stage(builder: Builder, pack: Pack) -> None:
    mark = uuid.uuid4().hex
    stages = f"{PLAIN.decode()}LABEL {mark}=1\nRUN echo x > /x\nFROM tiltyard/python:3.11\nCOPY --from=0 /x /y\n"
    archive = pack(context(stages.encode() + b'CMD ["/y"]\n'))
    first, second = builder.build(archive), builder.build(archive)
    assert images_with(builder.client, mark) == []
    assert first.image_id != second.image_id  # so one run cannot take the other's away
    images.remove_image(builder.client, first.image_id)
    assert builder.client.images.get(second.image_id)


def test_two_builds_share_nothing_but_the_base(builder: Builder, pack: Pack) -> None:
    """One that ends takes away what it made; another that had begun to build on it would fail."""

    def made_of(image_id: str) -> set[str]:
        steps = set()
        base = builder.client.images.get(PYTHON_IMAGE).id
        while image_id and image_id != base:
            steps.add(image_id)
            image_id = builder.client.images.get(image_id).attrs["Parent"]
        return steps

    archive = pack(context(PLAIN + b"RUN echo x > /x\n"))
    first, second = (made_of(builder.build(archive).image_id) for _ in range(2))
    assert len(first) == len(second) > 2
    assert first & second == set()


def test_a_volume_over_a_system_folder_is_rejected(builder: Builder, pack: Pack) -> None:
    with pytest.raises(SubmissionFault, match="VOLUME at /etc/x"):
        builder.build(pack(context(PLAIN + b"VOLUME /etc/x\n")))
