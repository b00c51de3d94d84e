"""What a hostile server tries, in the sandbox and, as a control, in an ordinary container, where it works."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from pairs_for_tests import GIVE_UP, PYTHON_IMAGE, SERVER, WAIT, Runner, ordinary_run

from tiltyard_sandbox.limits import MIB
from tiltyard_sandbox.pair import run_pair
from tiltyard_sandbox.verdicts import Cancelled

pytestmark = [pytest.mark.docker, pytest.mark.slow]

ATTACKS = Path(__file__).with_name("attacks.py").read_text()
Build = Callable[..., str]


def probe(runner: Runner, image: str) -> dict[str, Any]:
    """The attack script's findings inside the sandbox."""
    found: dict[str, Any] = {}
    seen = threading.Event()

    def listen(line: str) -> None:
        if line.startswith("{"):
            found.update(json.loads(line))
            seen.set()

    def stop() -> None:
        seen.wait(30)
        runner.cancel.set()

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Cancelled):
        run_pair(
            runner.client,
            submission_image=image,
            evaluator_image=PYTHON_IMAGE,
            evaluator_command=["python3", "-c", WAIT],
            suite_dir=runner.suite,
            results_dir=runner.results,
            limits=runner.limits,
            run_labels=runner.labels,
            on_evaluator_line=runner.evaluator_lines.append,
            on_server_log=listen,
            cancel=runner.cancel,
        )
    assert found, "the attack script printed nothing"
    return found


@pytest.fixture
def gateway_service(client: docker.DockerClient) -> Iterator[str]:
    """A service of the host on the bridge's gateway address, as "host:port"."""
    neighbour = client.containers.run(PYTHON_IMAGE, ["sleep", "60"], detach=True)
    neighbour.reload()
    gateway = neighbour.attrs["NetworkSettings"]["Gateway"]
    neighbour.remove(force=True)
    with socket.create_server((gateway, 0)) as server:
        yield f"{gateway}:{server.getsockname()[1]}"


PROBE_DOCKERFILE = """ARG BASE=tiltyard/python:3.11
FROM ${{BASE}}
COPY server.py /server.py
ENV PROBE_TARGET={target} LD_PRELOAD=/evil.so NVIDIA_VISIBLE_DEVICES=all
USER root
VOLUME /data
HEALTHCHECK CMD touch /data/healthy
STOPSIGNAL SIGCONT
CMD ["python3", "/server.py"]
"""


def test_what_an_ordinary_container_allows_the_sandbox_refuses(
    runner: Runner, build: Build, gateway_service: str
) -> None:
    image = build(ATTACKS, PROBE_DOCKERFILE.format(target=gateway_service).encode())
    control = json.loads(ordinary_run(runner, image, ["python3", "/server.py", "--once"]))
    inside = probe(runner, image)

    worked = {name for name, outcome in control.items() if outcome == "done"}
    assert worked >= {"gateway", "raw", "packet", "vsock", "root", "etc", "mknod", "ptrace"}, control
    assert control["io_uring"] == "EFAULT"  # the kernel looked at the arguments: the call was let through
    assert control["uid"] == 0
    assert control["volume_write"][1] == "done"

    allowed = {name for name, outcome in inside.items() if outcome == "done"}
    assert allowed == set(), inside
    assert inside["uid"] == 65532
    assert inside["capabilities"] == "0000000000000000"
    assert inside["no_new_privileges"] == "1"
    assert inside["interfaces"] == ["lo"]
    assert inside["gateway"] in {"ENETUNREACH", "EHOSTUNREACH"}
    assert inside["metadata"] in {"ENETUNREACH", "EHOSTUNREACH"}
    assert inside["dns"] == "no DNS"
    assert (inside["root"], inside["etc"]) == ("EROFS", "EROFS")
    for name in ("vsock", "io_uring", "packet", "raw", "bpf", "userfaultfd", "keyctl", "ptrace", "mount"):
        assert inside[name] == "EPERM", name
    assert inside["docker_socket"] is False


SUID_DOCKERFILE = b"""FROM tiltyard/python:3.11
COPY server.py /server.py
RUN cp /usr/bin/python3.11 /suid && chmod 4755 /suid
CMD ["/suid", "/server.py"]
"""


def test_set_user_id_files_are_inert(runner: Runner, build: Build) -> None:
    image = build("import os, time; print(os.geteuid(), flush=True); time.sleep(3600)", SUID_DOCKERFILE)
    assert ordinary_run(runner, image, ["/suid", "-c", "import os; print(os.geteuid())"], user="65532") == b"0\n"
    runner(image, GIVE_UP)
    assert runner.server_lines == ["65532"]


def test_the_room_to_write_is_bounded(runner: Runner, build: Build) -> None:
    inside = probe(runner, build(ATTACKS, PROBE_DOCKERFILE.format(target="127.0.0.1:9").encode()))
    tmp_bytes, tmp_error = inside["tmp"]
    assert tmp_error == "ENOSPC"
    assert tmp_bytes <= runner.limits.tmpfs_bytes
    assert inside["shm"][0] <= runner.limits.shm_bytes
    assert inside["volume_write"][0] <= MIB
    assert inside["tmp_inodes"][0] < runner.limits.tmpfs_inodes
    assert (inside["preload"], inside["nvidia"]) == ("", "void")
    assert (inside["port"], inside["home"]) == ("8000", "/tmp")


def test_volumes_of_the_image_leave_nothing_behind(runner: Runner, build: Build) -> None:
    before = {volume.name for volume in runner.client.volumes.list()}
    runner(build(SERVER, PROBE_DOCKERFILE.format(target="127.0.0.1:9").encode()))
    made = {volume.name for volume in runner.client.volumes.list()} - before
    assert made == set()
