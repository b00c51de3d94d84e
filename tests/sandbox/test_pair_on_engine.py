"""The pair of containers on a real engine: what holds a submission in, how each end is judged, and that nothing stays.

The tests use a bare Python as the evaluator, so that each can end as it pleases; the real evaluator has its own tests.
"""

import dataclasses
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tiltyard_sandbox.decide import ReportedFailure, decide
from tiltyard_sandbox.limits import MIB, Limits
from tiltyard_sandbox.pair import EndedBy, PairOutcome, run_pair, sweep
from tiltyard_sandbox.results import read_results
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason

pytestmark = [pytest.mark.docker, pytest.mark.slow]

PYTHON_IMAGE = "tiltyard/python:3.11"
ATTACKS = Path(__file__).with_name("attacks.py").read_text()
SERVER = """
import http.server, os
print("serving", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello")
http.server.HTTPServer(("127.0.0.1", int(os.environ["TILTYARD_PORT"])), Handler).serve_forever()
"""
ASK = """
import time, urllib.request
for attempt in range(100):
    try:
        body = urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=5).read()
        break
    except OSError:
        time.sleep(0.1)
open("/results/result.json", "wb").write(body)
print("asked", flush=True)
"""
WAIT = "import time; time.sleep(3600)"
GIVE_UP = "import sys, time; time.sleep(2); sys.exit(2)"
STARTUP = ReportedFailure("start_timeout", "The server was not ready after 3 s.")


class Runner:
    """Runs pairs under labels of its own, and keeps what they printed."""

    def __init__(self, client: docker.DockerClient, folder: Path, limits: Limits) -> None:
        self.client = client
        self.limits = limits
        self.labels = {"tiltyard.run": f"test-{uuid.uuid4().hex}", "tiltyard.attempt": "1"}
        self.evaluator_lines: list[str] = []
        self.server_lines: list[str] = []
        self.cancel = threading.Event()
        self.suite = folder / "suite"
        self.results = folder / "results"
        self.suite.mkdir(mode=0o755)
        self.results.mkdir(mode=0o700)
        (self.suite / "suite.yaml").write_text("name: test\n")
        for parent in (folder, self.suite):
            parent.chmod(0o755)
        (self.suite / "suite.yaml").chmod(0o644)

    def __call__(self, image: str, evaluator: str = ASK, **changes: Any) -> PairOutcome:
        return run_pair(
            self.client,
            submission_image=image,
            evaluator_image=PYTHON_IMAGE,
            evaluator_command=["python3", "-c", evaluator],
            suite_dir=self.suite,
            results_dir=self.results,
            limits=dataclasses.replace(self.limits, **changes),
            run_labels=self.labels,
            on_evaluator_line=self.evaluator_lines.append,
            on_server_log=self.server_lines.append,
            cancel=self.cancel,
        )

    def containers(self) -> list[Any]:
        label = f"tiltyard.run={self.labels['tiltyard.run']}"
        return list(self.client.containers.list(all=True, filters={"label": label}))


@pytest.fixture
def runner(client: docker.DockerClient, tmp_path: Path, limits: Limits) -> Iterator[Runner]:
    """A runner whose containers are all gone at the end, whatever the test did."""
    one = Runner(client, tmp_path, limits)
    yield one
    left = [container.id for container in one.containers()]
    sweep(client, one.labels)
    assert left == []


Build = Callable[..., str]


def test_an_evaluator_asks_the_server_and_its_result_comes_back(runner: Runner, build: Build) -> None:
    outcome = runner(build(SERVER))
    assert outcome.ended_by is EndedBy.EVALUATOR
    assert (outcome.evaluator_exit, outcome.submission_exit, outcome.cleanup_errors) == (0, None, ())
    assert decide(outcome, None).reason is None
    assert read_results(runner.results, ["result.json"], 1000) == {"result.json": b"hello"}
    assert runner.evaluator_lines == ["asked"]
    assert "serving" in runner.server_lines


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
    output = runner.client.containers.run(
        image,
        ["python3", "/server.py", "--once"],
        environment={"LD_PRELOAD": ""},
        security_opt=["seccomp=unconfined"],  # the engine's own profile differs from version to version
        remove=True,
        labels=runner.labels,
    )
    control = json.loads(output)
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
    control = runner.client.containers.run(
        image, ["/suid", "-c", "import os; print(os.geteuid())"], user="65532", remove=True, labels=runner.labels
    )
    assert control == b"0\n"
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


FORK_BOMB = """
import os, time
made = 0
try:
    while made < 2000:
        if os.fork() == 0:
            time.sleep(3600)
        made += 1
except OSError:
    pass
print("forked", made, flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("pids", [32, 128])
def test_a_fork_bomb_stops_at_the_limit(runner: Runner, build: Build, pids: int) -> None:
    runner(build(FORK_BOMB), GIVE_UP, pids=pids)
    made = next(int(line.split()[1]) for line in runner.server_lines if line.startswith("forked"))
    assert pids - 5 <= made < pids


def test_a_memory_bomb_is_out_of_memory(runner: Runner, build: Build) -> None:
    outcome = runner(build("x = []\nwhile True: x.append(bytearray(1 << 20))"), WAIT, memory_bytes=64 * MIB)
    assert outcome.ended_by is EndedBy.SUBMISSION
    assert decide(outcome, None).reason is Reason.OUT_OF_MEMORY


CHILD_BOMB = """
import subprocess, sys, time
subprocess.run([sys.executable, "-c", "x = []\\nwhile True: x.append(bytearray(1 << 20))"])
print("child died", flush=True)
time.sleep(3600)
"""


def test_a_child_that_the_kernel_killed_is_noticed_while_the_server_lives(runner: Runner, build: Build) -> None:
    outcome = runner(build(CHILD_BOMB), GIVE_UP, memory_bytes=64 * MIB)
    assert outcome.submission_exit is None
    assert outcome.submission_oom
    assert decide(outcome, STARTUP).reason is Reason.OUT_OF_MEMORY


def test_memory_filled_through_tmpfs_counts(runner: Runner, build: Build) -> None:
    fill = "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20)); f.flush()"
    outcome = runner(build(fill), WAIT, memory_bytes=64 * MIB, tmpfs_bytes=512 * MIB)
    assert decide(outcome, None).reason is Reason.OUT_OF_MEMORY


@pytest.mark.parametrize("code", [0, 3, 137])
def test_a_server_that_exits_crashed_whatever_its_status(runner: Runner, build: Build, code: int) -> None:
    outcome = runner(build(f"import sys; print('bye', flush=True); sys.exit({code})"), GIVE_UP)
    verdict = decide(outcome, STARTUP)
    assert outcome.submission_exit == code
    assert verdict.reason is Reason.CRASHED
    assert str(code) in verdict.message
    assert runner.server_lines == ["bye"]


def test_a_server_that_never_gets_ready_keeps_the_evaluators_reason(runner: Runner, build: Build) -> None:
    outcome = runner(build(WAIT), GIVE_UP)
    assert decide(outcome, STARTUP).reason is Reason.START_TIMEOUT


def test_a_command_that_does_not_exist_is_the_submissions_fault(runner: Runner, build: Build) -> None:
    dockerfile = b'FROM tiltyard/python:3.11\nCMD ["/no/such/program"]\n'
    # The init is the first process: the runtime starts that one, and it ends with status 127.
    outcome = runner(build("", dockerfile), GIVE_UP)
    assert decide(outcome, STARTUP).reason is Reason.CRASHED
    assert outcome.submission_exit == 127


def test_the_deadline_ends_both(runner: Runner, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiltyard_sandbox.pair.WRITING_S", 0.5)
    outcome = runner(build(SERVER), WAIT, start_s=1.0, evaluate_s=1.0)
    assert outcome.ended_by is EndedBy.DEADLINE
    assert decide(outcome, None).reason is Reason.TIME_LIMIT


def test_the_log_is_capped(runner: Runner, build: Build) -> None:
    flood = "import time\nfor i in range(200000): print('x' * 100)\nprint('end', flush=True)\ntime.sleep(3600)"
    runner(build(flood), GIVE_UP)
    assert sum(map(len, runner.server_lines)) < runner.limits.log_bytes + 200
    assert "longer than" in runner.server_lines[-1]


def test_terminal_escapes_do_not_reach_the_log(runner: Runner, build: Build) -> None:
    runner(build("print('a\\x1b[2Jb\\x07', flush=True)\nimport time; time.sleep(3600)"), GIVE_UP)
    assert runner.server_lines == ["a\ufffd[2Jb\ufffd"]


IGNORES_SIGTERM = """
import signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(3600)
"""


def test_a_cancellation_takes_seconds_even_when_signals_are_ignored(runner: Runner, build: Build) -> None:
    image = build(IGNORES_SIGTERM)
    asked_at = []

    def ask_to_stop(line: str) -> None:
        asked_at.append(time.monotonic())
        runner.cancel.set()

    runner.server_lines = Appending(ask_to_stop)
    with pytest.raises(Cancelled):
        runner(image, WAIT)
    assert time.monotonic() - asked_at[0] < 5
    assert runner.containers() == []


class Appending(list[str]):
    """A list that tells when something is appended."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, line: str) -> None:
        super().append(line)
        self._tell(line)


def test_a_callback_that_fails_ends_the_run_and_is_ours(runner: Runner, build: Build) -> None:
    def fail(line: str) -> None:
        raise RuntimeError("the database is gone")

    runner.server_lines = Appending(fail)
    with pytest.raises(InfraFault, match="the database is gone"):
        runner(build(SERVER), WAIT)
    assert runner.containers() == []


def test_the_submission_never_sees_suite_or_results(runner: Runner, build: Build) -> None:
    look = "import os, time\nprint(sorted(set(os.listdir('/')) & {'suite', 'results'}), flush=True)\ntime.sleep(3600)"
    runner(build(look), GIVE_UP)
    assert runner.server_lines == ["[]"]


def test_the_evaluator_cannot_change_the_suite(runner: Runner, build: Build) -> None:
    runner(build(SERVER), "open('/suite/suite.yaml', 'a').write('x')")
    assert (runner.suite / "suite.yaml").read_text() == "name: test\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the results directory over")
def test_a_suite_that_the_evaluator_cannot_read_is_named(runner: Runner, build: Build) -> None:
    (runner.suite / "suite.yaml").chmod(0o600)
    with pytest.raises(InfraFault, match=r"suite\.yaml"):
        runner(build(SERVER))


def test_sweep_removes_strays_with_these_labels_and_no_others(runner: Runner, client: docker.DockerClient) -> None:
    other_labels = {**runner.labels, "tiltyard.attempt": "2"}
    stray = client.containers.run(PYTHON_IMAGE, ["sleep", "600"], detach=True, labels=runner.labels)
    other = client.containers.run(PYTHON_IMAGE, ["sleep", "600"], detach=True, labels=other_labels)
    assert sweep(client, runner.labels) == 1
    assert [container.id for container in runner.containers()] == [other.id]
    assert sweep(client, other_labels) == 1
    assert sweep(client, other_labels) == 0
    assert stray.id != other.id
    with pytest.raises(ValueError, match="label"):
        sweep(client, {})
