"""The flags of the containers that only special hardware would show at work."""

import json

import pytest

from tiltyard_sandbox.containers import seccomp_profile, submission_options
from tiltyard_sandbox.images import volume_paths
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.verdicts import SubmissionFault

GPU = "GPU-3f2b1c4d-0000-1111-2222-333344445555"


def options(limits: Limits) -> dict[str, object]:
    return submission_options("sha256:0", volumes=[], limits=limits, labels={"tiltyard.run": "1"}, port=9000)


def test_a_gpu_is_asked_for_by_its_uuid_and_by_no_count() -> None:
    found = options(Limits(gpu_uuid=GPU))
    (request,) = found["device_requests"]  # type: ignore[misc]
    assert request["DeviceIDs"] == [GPU]
    assert request["Count"] == 0
    assert found["environment"]["NVIDIA_VISIBLE_DEVICES"] == GPU  # type: ignore[index]


def test_the_environment_says_where_to_listen_and_where_to_write() -> None:
    environment = options(Limits())["environment"]
    assert environment["TILTYARD_PORT"] == "9000"  # type: ignore[index]
    assert environment["HOME"] == "/tmp"  # type: ignore[index]


def test_the_runtime_is_the_engines_unless_the_worker_names_one() -> None:
    assert options(Limits(runtime="runsc"))["runtime"] == "runsc"
    assert "runtime" not in options(Limits())


def test_without_a_gpu_none_is_visible() -> None:
    found = options(Limits())
    assert "device_requests" not in found
    assert found["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"  # type: ignore[index]


def test_a_worker_may_pin_it_to_cores() -> None:
    assert options(Limits(cpuset="0-1,3"))["cpuset_cpus"] == "0-1,3"
    assert "cpuset_cpus" not in options(Limits())


def test_a_port_below_1024_is_open_to_the_submissions_account() -> None:
    found = submission_options("sha256:0", volumes=[], limits=Limits(), labels={"tiltyard.run": "1"}, port=80)
    assert found["sysctls"] == {"net.ipv4.ip_unprivileged_port_start": "0"}
    assert found["cap_drop"] == ["ALL"]
    assert "cap_add" not in found
    assert "sysctls" not in options(Limits())


def test_swap_is_no_way_around_the_memory_limit() -> None:
    found = options(Limits(cpus=1.5))
    assert found["memswap_limit"] == found["mem_limit"]
    assert found["nano_cpus"] == 1_500_000_000


def test_the_seccomp_profile_denies_by_default_and_names_no_escape() -> None:
    profile = json.loads(seccomp_profile())
    allowed = {
        name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and not rule["args"]
        for name in rule["names"]
    }  # fmt: skip
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    escapes = {"io_uring_setup", "bpf", "ptrace", "mount", "unshare", "setns", "keyctl", "add_key", "userfaultfd"}
    escapes |= {"perf_event_open", "process_vm_readv", "open_by_handle_at", "init_module", "kexec_load", "chroot"}
    assert allowed.isdisjoint(escapes | {"socket", "clone", "clone3", "personality"})


@pytest.mark.parametrize(
    "path", ["/", "/proc/x", "/etc", "/a/../b", "/.", "/./data", "/data/.", "relative", "/a:b", "/a,b", "/a b"]
)
def test_unusual_volumes_are_refused(path: str) -> None:
    with pytest.raises(SubmissionFault, match="VOLUME"):
        volume_paths({"Volumes": {path: {}}})


def test_ordinary_volumes_are_covered() -> None:
    paths = volume_paths({"Volumes": {"/data/": {}, "/root/.cache": {}}})
    found = submission_options("sha256:0", volumes=paths, limits=Limits(), labels={}, port=8000)
    assert "size=1048576" in found["tmpfs"]["/data"]
    assert "/root/.cache" in found["tmpfs"]
