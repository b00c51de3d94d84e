"""What an image says to the programs that give a container its GPU: nothing, on a real engine.

No GPU is needed for that. The engine is told to make such a container, and calls the program that would put the device
in: NVIDIA's hook, played here by one that writes down what it was given. What it was given is all that it goes by.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.types import DeviceRequest
from pairs_for_tests import PYTHON_IMAGE, WAIT, Runner
from second_engine import second_engine

from tiltyard_sandbox.containers import submission_options
from tiltyard_sandbox.image_environment import environment_of
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.verdicts import Cancelled, InfraFault

GPU = "GPU-3f2b1c4d-0000-1111-2222-333344445555"
OTHER_GPU = "GPU-99999999-0000-1111-2222-333344445555"
HOOK = """#!{python} -IS
import json, os, pathlib, sys
seen = pathlib.Path({seen!r})
state = json.load(sys.stdin)
config = json.loads(pathlib.Path(state["bundle"], "config.json").read_text())
told = {{"arguments": sys.argv[1:], "environment": config["process"]["env"], "mounts": config["mounts"],
        "devices": config["linux"].get("devices") or [], "annotations": config.get("annotations") or {{}}}}
(seen / state["id"]).write_text(json.dumps(told))
failure = seen / "failure"
if failure.exists():
    sys.exit(failure.read_text())
"""
# What a hostile image says, and what of it the host's programs would go by.
ATTACKS = {
    "LD_PRELOAD": "/proc/self/cwd/evil.so",
    "LD_AUDIT": "/proc/self/cwd/evil.so",
    "LD_LIBRARY_PATH": "evil:/proc/self/cwd/evil",
    "LD_DEBUG_OUTPUT": "/proc/self/cwd/x",
    "GLIBC_TUNABLES": "glibc.malloc.mxfast=glibc.malloc.mxfast=1",
    "GCONV_PATH": "evil",
    "BASH_ENV": "evil",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "all",
    "NVIDIA_REQUIRE_CUDA": "cuda>=99.0",
    "NVIDIA_REQUIRE_ANYTHING": "brand=none",
    "NVIDIA_DISABLE_REQUIRE": "0",
    "NVIDIA_MIG_CONFIG_DEVICES": "all",
    "NVIDIA_MIG_MONITOR_DEVICES": "all",
    "NVIDIA_IMEX_CHANNELS": "0",
    "NVIDIA_GDS": "enabled",
    "NVIDIA_MOFED": "enabled",
    "NVIDIA_GDRCOPY": "enabled",
    "NVIDIA_NVSWITCH": "enabled",
    "NVIDIA_WHATEVER_COMES_NEXT": "enabled",
}
VOLUME = "/var/run/nvidia-container-devices/all"  # a mount there is a device's name to NVIDIA's runtime
ORDINARY = {"PATH": "/opt/venv/bin:/usr/bin:/bin", "MODEL": "tiny", "CUDA_VERSION": "12.4.1"}
PRINT = "import json, os, time\nprint(json.dumps(dict(os.environ)), flush=True)\ntime.sleep(3600)"


@dataclass
class GpuEngine:
    """An engine that takes this machine for one with GPUs, an image with every attack, and what the hook saw."""

    client: docker.DockerClient
    image: str
    seen: Path

    def told(self, container_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.seen / container_id).read_text())
        return found

    @contextmanager
    def container(self, **options: Any) -> Iterator[str]:
        container = self.client.containers.create(**options)
        try:
            container.start()
            yield str(container.id)
        finally:
            container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def gpus(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuEngine]:
    folder = tmp_path_factory.mktemp("hook")
    seen = folder / "seen"
    seen.mkdir()
    hook = folder / "nvidia-container-runtime-hook"
    hook.write_text(HOOK.format(python=sys.executable, seen=str(seen)))
    hook.chmod(0o755)
    path = f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"
    with second_engine(PATH=path) as engine, engine.running():
        engine.fill(client, PYTHON_IMAGE)
        with closing(docker.DockerClient(base_url=engine.url, timeout=120)) as own:
            yield GpuEngine(own, _image(own, ["python3", "-c", PRINT]), seen)


def _image(client: docker.DockerClient, command: list[str], **settings: Any) -> str:
    """As a saved image may have it."""
    said = [f"{name}={value}" for name, value in {**ATTACKS, **ORDINARY}.items()]
    container = client.containers.create(PYTHON_IMAGE)
    image = container.commit(conf={"Env": said, "Cmd": command, "Volumes": {VOLUME: {}}, **settings})
    container.remove()
    return str(image.id)


def values(told: dict[str, Any], name: str) -> set[str]:
    """Every value that a variable has; programs differ in whether they take the first or the last."""
    pairs = [entry.partition("=") for entry in told["environment"]]
    return {value for key, _, value in pairs if key == name}


@pytest.fixture
def gpu_runner(gpus: GpuEngine, tmp_path: Path, limits: Limits) -> Runner:
    return Runner(gpus.client, tmp_path, limits)


@dataclass
class Seen:
    """A run's container from three sides: the engine's, the hook's and its own."""

    details: dict[str, Any]
    told: dict[str, Any] | None
    environment: dict[str, str]


@pytest.fixture
def run(gpus: GpuEngine, gpu_runner: Runner) -> Callable[..., Seen]:
    """Run the hostile image as a submission, and look at its container while it lives."""

    def call(**limits: Any) -> Seen:
        found: list[dict[str, Any]] = []

        class Lines(list[str]):
            def append(self, line: str) -> None:
                super().append(line)
                [container] = [one for one in gpu_runner.containers() if one.labels["tiltyard.role"] == "submission"]
                found.append(container.attrs)
                gpu_runner.cancel.set()

        gpu_runner.server_lines = Lines()
        with pytest.raises(Cancelled):
            gpu_runner(gpus.image, WAIT, **limits)
        [details], [line] = found, gpu_runner.server_lines
        told = gpus.told(details["Id"]) if (gpus.seen / details["Id"]).exists() else None
        return Seen(details, told, json.loads(line))

    return call


@pytest.mark.docker
@pytest.mark.slow
def test_the_hook_is_told_of_one_gpu_and_of_nothing_that_the_image_says(run: Callable[..., Seen]) -> None:
    seen = run(gpu_uuid=GPU)
    assert seen.told is not None
    assert seen.told["arguments"] == ["prestart"]
    assert values(seen.told, "NVIDIA_VISIBLE_DEVICES") == {GPU}
    assert values(seen.told, "NVIDIA_DRIVER_CAPABILITIES") == {"compute,utility"}
    assert values(seen.told, "NVIDIA_DISABLE_REQUIRE") == {"1"}
    ours = {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_DISABLE_REQUIRE"}
    assert {name: found for name in ATTACKS if name not in ours and (found := values(seen.told, name) - {""})} == {}
    assert not any("99.0" in entry or "evil" in entry or OTHER_GPU in entry for entry in seen.told["environment"])
    # What is no affair of the host's stays as it is.
    assert {name: seen.environment[name] for name in ORDINARY} == ORDINARY


@pytest.mark.docker
@pytest.mark.slow
def test_a_container_with_a_gpu_is_hardened_as_any_other(run: Callable[..., Seen]) -> None:
    seen = run(gpu_uuid=GPU)
    host = seen.details["HostConfig"]
    [request] = host["DeviceRequests"]
    assert (request["DeviceIDs"], request["Count"]) == ([GPU], 0)
    assert request["Capabilities"] == [["gpu", "compute", "utility"]]
    assert not host["Privileged"]
    assert not host["Devices"]
    assert not host["DeviceCgroupRules"]
    assert not host["Binds"]
    assert not host["CapAdd"]
    assert host["CapDrop"] == ["ALL"]
    assert host["ReadonlyRootfs"]
    assert host["NetworkMode"] == "none"
    assert host["Runtime"] == "runc"
    assert seen.details["Config"]["User"] == "65532:65532"
    assert seen.told is not None
    assert not any("nvidia" in device["path"] for device in seen.told["devices"])
    assert seen.told["annotations"] == {}
    # NVIDIA's runtime takes /dev/null below its folder for a device's name; the image's VOLUME there is a tmpfs.
    [cover] = [mount for mount in seen.told["mounts"] if "nvidia" in mount["destination"]]
    assert (cover["destination"], cover["type"], cover["source"]) == (VOLUME, "tmpfs", "tmpfs")


@pytest.mark.docker
@pytest.mark.slow
def test_a_track_without_a_gpu_gives_none_whatever_the_image_says(run: Callable[..., Seen]) -> None:
    """Also where the engine's usual runtime is NVIDIA's, which goes by the variables alone."""
    seen = run()
    assert seen.told is None, "the hook was called"
    assert not seen.details["HostConfig"]["DeviceRequests"]
    assert seen.environment["NVIDIA_VISIBLE_DEVICES"] == "void"
    left = {name: seen.environment[name] for name in ATTACKS if seen.environment.get(name)}
    assert left == {"NVIDIA_VISIBLE_DEVICES": "void"}


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_without_the_defences_the_hook_reads_what_the_image_says(gpus: GpuEngine, name: str) -> None:
    """The control: the same image, with the GPU asked for as `docker run --gpus` does."""
    request = DeviceRequest(device_ids=[OTHER_GPU], capabilities=[["gpu"]])
    with gpus.container(image=gpus.image, device_requests=[request], network_mode="none") as container:
        assert ATTACKS[name] in values(gpus.told(container), name)


@pytest.mark.docker
@pytest.mark.slow
def test_a_hook_that_fails_is_the_hosts_fault(gpus: GpuEngine, gpu_runner: Runner) -> None:
    failure = gpus.seen / "failure"
    failure.write_text("nvidia-container-cli: initialization error: nvml error: driver not loaded")
    try:
        with pytest.raises(InfraFault, match="driver not loaded"):
            gpu_runner(gpus.image, WAIT, gpu_uuid=GPU)
    finally:
        failure.unlink()
    assert gpu_runner.containers() == []


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("/opt/lib:/usr/local/nvidia/lib64", "/opt/lib:/usr/local/nvidia/lib64"),
        ("/opt/lib;evil", "/opt/lib"),
        ("/opt/lib:", "/opt/lib"),  # an empty part is the working directory
        (":", None),
        ("./evil:evil:../evil", None),
        ("/proc/self/cwd/evil://proc/self/cwd:/./proc/1/cwd:/dev/fd/3:/sys/x", None),
        ("/var/run/../proc/self/cwd", None),  # /var/run is a link, so that this is /proc
        ("/$ORIGIN/../../proc/self/cwd:$ORIGIN:/usr/${LIB}", None),
        ("/", None),
    ],
)
def test_of_a_library_path_only_fixed_folders_are_kept(said: str, kept: str | None) -> None:
    assert environment_of([f"LD_LIBRARY_PATH={said}"], None)["LD_LIBRARY_PATH"] == kept


@pytest.mark.parametrize("gpu", [None, GPU])
def test_nothing_of_an_image_is_asked_for_by_name_alone(gpu: str | None) -> None:
    """Strange entries, which a saved image may have, neither break the options nor come through."""
    said = [
        "NVIDIA_NEW=1",
        "NVIDIA_NEW=2",
        "NVIDIA_BARE",
        "=NVIDIA_X",
        "",
        "nvidia_visible_devices=all",
        "A=NVIDIA_B=1",
    ]
    found = submission_options(
        "sha256:0", volumes=[], limits=Limits(gpu_uuid=gpu), labels={}, port=8000, image_env=said
    )["environment"]
    assert found["NVIDIA_NEW"] is None
    assert found["NVIDIA_BARE"] is None
    assert found["NVIDIA_VISIBLE_DEVICES"] == (gpu or "void")
    assert {name for name in found if not name.isupper()} == set()
    assert "A" not in found
