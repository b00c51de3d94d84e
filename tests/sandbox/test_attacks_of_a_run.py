"""What a run tries beyond its container: by its results, its log, its end, and what it leaves for the next suite."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from host_as_before import host_as_before
from lifting import lifted
from pairs_for_tests import PYTHON_IMAGE, Runner

from tiltyard_sandbox.attacks.engine import ATTACK_LIMITS, attackers_image, command, findings
from tiltyard_sandbox.attacks.table import ATTACKS
from tiltyard_sandbox.containers import submission_options
from tiltyard_sandbox.decide import decide
from tiltyard_sandbox.defences import Defence
from tiltyard_sandbox.limits import MIB
from tiltyard_sandbox.pair import EndedBy
from tiltyard_sandbox.results import read_results
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason

pytestmark = [pytest.mark.docker, pytest.mark.slow]

Build = Callable[..., str]
IDLE = "import time; time.sleep(3600)"


@pytest.fixture(autouse=True)
def _host_as_before(client: docker.DockerClient, runner: Runner) -> Iterator[None]:
    run = runner.labels["tiltyard.run"]
    with host_as_before(client, lambda labels: labels.get("tiltyard.run") == run):
        yield


def test_a_run_is_held_by_all_of_it(runner: Runner) -> None:
    """By the way that submissions go: every attack, in the image's own command, as root by its own word."""
    names = [attack.name for attack in ATTACKS]
    runner.limits = ATTACK_LIMITS
    runner.server_lines = Telling(lambda line: '"attack": null' in line, runner.cancel.set)
    with attackers_image(runner.client, PYTHON_IMAGE, runner.labels) as base:
        container = runner.client.containers.create(base, labels=runner.labels)
        image = container.commit(conf={"Entrypoint": command(names, ATTACK_LIMITS, {}), "Cmd": []})
        container.remove(v=True)
        try:
            with pytest.raises(Cancelled):
                runner(image.id, IDLE)
        finally:
            runner.client.images.remove(image.id, noprune=True)
    found = findings(runner.server_lines, names)
    assert {name: one for name, one in found.items() if not one.is_held} == {}


class Telling(list[str]):
    """A list that calls back when something is appended that `is_it`."""

    def __init__(self, is_it: Callable[[str], bool], tell: Callable[[], None]) -> None:
        super().__init__()
        self._is_it = is_it
        self._tell = tell

    def append(self, line: str) -> None:
        super().append(line)
        if self._is_it(line):
            self._tell()


# An evaluator that a server has subverted writes these; the submission itself has no place to.
PLANT = """
import os, sys
os.chdir("/results")
os.symlink(sys.argv[1], "symlink")
os.mkfifo("fifo")
os.mkdir("folder")
open("secret", "w").write("x"); os.link("secret", "hard-link")
open("sparse", "wb").truncate(1 << 29)
"""


def test_planted_results_are_not_followed(runner: Runner, build: Build, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("a secret of the host")
    outcome = runner(build(IDLE), PLANT.replace("sys.argv[1]", repr(str(canary))))
    assert outcome.ended_by is EndedBy.EVALUATOR
    for name in ("symlink", "fifo", "folder", "hard-link", "sparse"):
        with pytest.raises(InfraFault, match=name):
            read_results(runner.results, [name], 1 * MIB)
    # The control: who opens them by name gets the host's secret, half a gigabyte of nothing, or waits for ever.
    assert (runner.results / "symlink").read_text() == "a secret of the host"
    assert (runner.results / "sparse").stat().st_size == 1 << 29
    with pytest.raises(OSError, match="No such device or address"):  # else it would wait for a reader
        os.open(runner.results / "fifo", os.O_WRONLY | os.O_NONBLOCK)


KEEP = """
import ctypes, pathlib
paths = ["/tmp/kept", "/dev/shm/kept", "/app/kept"]
libc = ctypes.CDLL(None)
print("found", [path for path in paths if pathlib.Path(path).exists()], libc.shmget(0x7117, 0, 0) >= 0, flush=True)
for path in paths:
    try:
        pathlib.Path(path).write_text("for the next suite")
    except OSError:
        pass
libc.shmget(0x7117, 4096, 0o1666)
"""
OPEN = b'FROM tiltyard/python:3.11\nRUN mkdir -m 777 /app\nCOPY server.py /server.py\nCMD ["python3", "/server.py"]\n'


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is over soon after its server ended, however long that took on a busy machine."""
    monkeypatch.setattr("tiltyard_sandbox.pair.GRACE_S", 0.5)


def test_nothing_is_kept_for_the_next_suite(runner: Runner, build: Build, short_grace: None) -> None:
    image = build(KEEP, OPEN)
    for _ in range(2):
        runner(image, IDLE)
    assert runner.server_lines == ["found [] False", "found [] False"]
    assert "/app/kept" in _twice_in_one_container(runner, image)


def _twice_in_one_container(runner: Runner, image: str) -> str:
    """The control: the same container again, with a root that can be written."""
    container = runner.client.containers.create(image, user="65532", network_mode="none", labels=runner.labels)
    try:
        for _ in range(2):
            container.start()
            container.wait(timeout=60)
        return str(container.logs(tail=1).decode())
    finally:
        container.remove(force=True, v=True)


def test_a_faked_status_is_not_taken_for_memory_and_memory_not_for_a_crash(
    runner: Runner, build: Build, short_grace: None
) -> None:
    faked = runner(build("import sys; sys.exit(137)"), IDLE)
    assert faked.submission_exit == 137  # what the kernel's own killing looks like
    assert decide(faked, None).reason is Reason.CRASHED
    hidden = runner(
        build(
            "import subprocess, sys\n"
            "subprocess.run([sys.executable, '-c', 'x = []\\nwhile True: x.append(bytearray(1 << 20))'])\n"
            "sys.exit(0)"
        ),
        IDLE,
        memory_bytes=64 * MIB,
    )
    assert hidden.submission_exit == 0  # the control: the status alone says that all was well
    assert decide(hidden, None).reason is Reason.OUT_OF_MEMORY


def test_a_server_cannot_speak_for_the_evaluator(runner: Runner, build: Build, short_grace: None) -> None:
    """Once the evaluator scores, a dead server is given a minute's grace: only the evaluator's own word begins it."""
    says = 'print(\'{"event": "stage", "stage": "scoring"}\', flush=True)'
    outcome = runner(build(says), IDLE)
    assert outcome.ended_by is EndedBy.SUBMISSION
    assert runner.evaluator_lines == []


FLOOD = ["python3", "-c", "for _ in range(20000): print('x' * 99)\nprint('end', flush=True)"]


def test_a_log_takes_little_of_the_disk(runner: Runner) -> None:
    labels = runner.labels
    options = submission_options(PYTHON_IMAGE, volumes=[], limits=runner.limits, labels=labels, port=8000)
    options |= {"entrypoint": FLOOD, "command": []}
    assert _log_bytes(runner, options) <= runner.limits.log_bytes + 1024
    without = lifted(options, [Defence.LOG_LIMIT], {})
    assert _log_bytes(runner, without) > 2 * MIB


def _log_bytes(runner: Runner, options: dict[str, Any]) -> int:
    """What the log of a container with these options takes on the engine's disk, or of its answer."""
    container = runner.client.containers.create(**options)
    try:
        container.start()
        container.wait(timeout=60)
        container.reload()
        files = list(Path(container.attrs["LogPath"]).parent.glob("*.log*"))
        return sum(path.stat().st_size for path in files) or len(container.logs())
    finally:
        container.remove(force=True, v=True)
