"""Both containers of a live pair by section 5 of the CIS Docker Benchmark; what does not pass is explained."""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from cis_benchmark import CHECKS, details_of, not_passed
from pairs_for_tests import PYTHON_IMAGE, SERVER, WAIT, Runner

from tiltyard_sandbox.verdicts import Cancelled

pytestmark = [pytest.mark.docker, pytest.mark.slow]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "sandbox.md"
EXPLAINED = {"5.1", "5.2", "5.14", "5.26"}  # 5.1 and 5.2 pass where the host has AppArmor or SELinux


def live_pair(runner: Runner, image: str) -> dict[str, list[str]]:
    """What each container of a running pair does not pass."""
    found: dict[str, list[str]] = {}
    evaluator_image = str(runner.client.images.get(PYTHON_IMAGE).id)

    def look() -> None:
        deadline = time.monotonic() + 60
        try:
            while time.monotonic() < deadline and len(found) < 2:
                time.sleep(0.1)
                running = [one for one in runner.containers() if one.status == "running"]
                if len(running) == 2:
                    found.update({one.labels["tiltyard.role"]: not_passed(details_of(one)) for one in running})
        finally:
            runner.cancel.set()

    looking = threading.Thread(target=look)
    looking.start()
    with pytest.raises(Cancelled):
        runner(image, WAIT, evaluator_image=evaluator_image)
    looking.join()
    return found


def test_a_live_pair_passes_or_is_explained(runner: Runner, build: Callable[..., str]) -> None:
    found = live_pair(runner, build(SERVER))
    assert found.keys() == {"submission", "evaluator"}
    for role, numbers in found.items():
        assert set(numbers) <= EXPLAINED, role
        assert {"5.14", "5.26"} <= set(numbers), role  # else the page explains what is no longer so
    explained = set(re.findall(r"^\| (5\.\d+) ", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert explained == EXPLAINED


def test_a_careless_container_fails_what_it_should(client: docker.DockerClient) -> None:
    """The checks see what they look for."""
    container = client.containers.run(
        PYTHON_IMAGE,
        ["python3", "-c", WAIT],
        detach=True,
        network_mode="host",
        pid_mode="host",
        ipc_mode="host",
        uts_mode="host",
        cap_add=["NET_ADMIN"],
        devices=["/dev/null:/dev/given"],
        security_opt=["seccomp=unconfined"],
        userns_mode="host",
        volumes={
            "/var/run/docker.sock": {"bind": "/var/run/docker.sock", "mode": "ro"},
            "/etc": {"bind": "/host-etc", "mode": "ro"},
        },
        labels={"tiltyard.test": "cis"},
    )
    try:
        numbers = set(not_passed(details_of(container)))
    finally:
        container.remove(force=True, v=True)
    passes = {"5.4", "5.6", "5.7", "5.8", "5.13", "5.19", "5.22", "5.23", "5.24", "5.29"}
    assert numbers == CHECKS.keys() - passes
