"""Whose fault it is that a container cannot be made or started: texts of a real engine, and images that cause them.

A participant chooses the paths, commands and variables in an image, and the engine quotes them in what it says. None of
that may pass for a complaint about the host, which would be tried again for nothing.
"""

from collections.abc import Callable

import docker
import pytest
from pairs_for_tests import GIVE_UP, SERVER, Runner

from tiltyard_sandbox.pair import _start_fault
from tiltyard_sandbox.verdicts import InfraFault, Reason, SubmissionFault

Build = Callable[..., str]

SHIM = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
INIT = SHIM + "error during container init: "
MERGED = "/var/lib/docker/overlay2/49107/merged"


@pytest.mark.parametrize(
    "text",
    [
        SHIM + 'exec: "/nvidia/cgroup": stat /nvidia/cgroup: no such file or directory: unknown',
        SHIM + 'exec: "say \\"no space left on device\\"": executable file not found in $PATH: unknown',
        INIT + f'error mounting "tmpfs" to rootfs at "/device": mkdir {MERGED}/device/x: not a directory: unknown',
        INIT + 'error mounting "tmpfs" to rootfs at "/c": mount tmpfs:/seccomp (via /proc/self/fd/6), flags: 0xe: '
        "not a directory: unknown",
        INIT + f"SecureJoin {MERGED}//nvidia-loop/: too many levels of symbolic links: unknown",
        INIT + 'environment variable value can\'t contain null(\\x00): "A=\\x00nvml": unknown',
        'OCI runtime create failed: container_linux.go:380: chdir to cwd ("/sys/fs/cgroup") failed: permission denied',
    ],
)
def test_what_the_image_says_is_the_submissions(text: str) -> None:
    fault = _start_fault(text)
    assert isinstance(fault, SubmissionFault)
    assert fault.reason is Reason.CRASHED
    assert fault.message.startswith("The server's command cannot be started: ")


@pytest.mark.parametrize(
    "text",
    [
        'could not select device driver "" with capabilities: [[gpu]]',
        INIT + "error running hook #0: error running hook: exit status 1, stdout: , stderr: nvidia-container-cli: "
        "initialization error: load library failed: libnvidia-ml.so.1: cannot open shared object file: unknown",
        INIT + "error running hook #0: stderr: Failed to initialize NVML: Unknown Error: unknown",
        SHIM + "error during container init: error setting cgroup config for procHooks process: unknown",
        SHIM + "unable to apply configuration: write /sys/fs/cgroup/pids/docker/1/pids.max: invalid argument: unknown",
        INIT + "error loading seccomp filter into kernel: errno 524: unknown",
        INIT + f"error creating the init file: open {MERGED}/x: no space left on device: unknown",
        INIT + f"read {MERGED}/sbin/docker-init: input/output error: unknown",
        "OCI runtime create failed: fork/exec /proc/self/exe: resource temporarily unavailable: unknown",
        "error while mounting volume: no such driver",
        "",
    ],
)
def test_what_the_host_lacks_is_ours(text: str) -> None:
    fault = _start_fault(text)
    assert isinstance(fault, InfraFault)
    assert fault.message.startswith("The submission's container cannot start: ")


@pytest.fixture
def committed(runner: Runner, build: Build, client: docker.DockerClient) -> Callable[..., str]:
    """An image with settings that no Dockerfile could give it, as a saved one may have."""

    def make(steps: str, **settings: object) -> str:
        image = build(SERVER, f'FROM tiltyard/python:3.11\n{steps}CMD ["python3"]\n'.encode())
        container = client.containers.create(image, labels=runner.labels)
        made.append(str(container.commit(conf=settings).id))
        container.remove()
        return made[-1]

    made: list[str] = []
    yield make
    for image_id in made:
        client.images.remove(image_id)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "settings", "reason"),
    [
        ("RUN touch /cgroup\n", {"Volumes": {"/cgroup": {}}}, Reason.CRASHED),
        ("RUN touch /nvidia\n", {"Volumes": {"/nvidia/device": {}}}, Reason.CRASHED),
        ("RUN ln -s /nvml /nvml\n", {"Volumes": {"/nvml": {}}}, Reason.CRASHED),
        ("RUN rm -rf /tmp && touch /tmp\n", {}, Reason.CRASHED),
        ("", {"Env": ["A=\0nvidia"]}, Reason.CRASHED),
        ("", {"WorkingDir": "/" + "nvidia" * 60}, Reason.IMAGE_REJECTED),
    ],
    ids=["file", "below a file", "loop", "no tmp", "null", "long"],
)
def test_an_image_that_stops_the_runtime_is_the_submissions(
    runner: Runner, committed: Callable[..., str], steps: str, settings: dict[str, object], reason: Reason
) -> None:
    with pytest.raises(SubmissionFault) as caught:
        runner(committed(steps, **settings), GIVE_UP)
    assert caught.value.reason is reason


@pytest.mark.docker
@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_ours(runner: Runner, build: Build, client: docker.DockerClient) -> None:
    if "nvidia" in client.info()["Runtimes"]:
        pytest.skip("this engine knows GPUs")
    with pytest.raises(InfraFault, match="could not select device driver"):
        runner(build(SERVER), GIVE_UP, gpu_uuid="GPU-00000000-0000-0000-0000-000000000000")
