"""The pair of containers on a real engine: what holds a submission in, how each end is judged, and that nothing stays.

The tests use a bare Python as the evaluator, so that each can end as it pleases; the real evaluator has its own tests.
"""

import os
import time
from collections.abc import Callable

import docker
import pytest
from pairs_for_tests import GIVE_UP, PYTHON_IMAGE, SERVER, WAIT, Runner

from tiltyard_sandbox.decide import ReportedFailure, decide
from tiltyard_sandbox.limits import MIB
from tiltyard_sandbox.pair import EndedBy, sweep
from tiltyard_sandbox.results import read_results
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason, SubmissionFault

pytestmark = [pytest.mark.docker, pytest.mark.slow]

STARTUP = ReportedFailure("start_timeout", "The server was not ready after 3 s.")


Build = Callable[..., str]


def test_an_evaluator_asks_the_server_and_its_result_comes_back(runner: Runner, build: Build) -> None:
    outcome = runner(build(SERVER))
    assert outcome.ended_by is EndedBy.EVALUATOR
    assert (outcome.evaluator_exit, outcome.submission_exit, outcome.cleanup_errors) == (0, None, ())
    assert decide(outcome, None).reason is None
    assert read_results(runner.results, ["result.json"], 1000) == {"result.json": b"hello"}
    assert runner.evaluator_lines == ["asked"]
    assert "serving" in runner.server_lines


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


@pytest.mark.parametrize("folder", ["/server.py", "/server.py/device"])
def test_a_working_directory_that_cannot_be_is_the_submissions_fault(
    runner: Runner, build: Build, client: docker.DockerClient, folder: str
) -> None:
    """As in a saved image: a build would not let it through."""
    container = client.containers.create(build(""), labels=runner.labels)
    image = container.commit(conf={"WorkingDir": folder})
    container.remove()
    try:
        with pytest.raises(SubmissionFault) as caught:
            runner(image.id, GIVE_UP)
    finally:
        client.images.remove(image.id)
    assert caught.value.reason is Reason.IMAGE_REJECTED


SCORE = """
import time
print('{"event": "stage", "stage": "STAGE"}', flush=True)
time.sleep(5)
"""


@pytest.mark.parametrize(("stage", "ended_by"), [("scoring", EndedBy.EVALUATOR), ("asking", EndedBy.SUBMISSION)])
def test_a_server_may_exit_while_its_answers_are_scored(
    runner: Runner, build: Build, stage: str, ended_by: EndedBy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiltyard_sandbox.pair.GRACE_S", 1.0)
    server = build("import time; print('answered', flush=True); time.sleep(2)")
    assert runner(server, SCORE.replace("STAGE", stage)).ended_by is ended_by


def test_the_deadline_ends_both(runner: Runner, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiltyard_sandbox.pair.WRITING_S", 0.5)
    outcome = runner(build(SERVER), WAIT, start_s=1.0, evaluate_s=1.0)
    assert outcome.ended_by is EndedBy.DEADLINE
    assert decide(outcome, None).reason is Reason.TIME_LIMIT


def test_the_log_is_capped(runner: Runner, build: Build) -> None:
    flood = "import time\nfor i in range(200000): print('x' * 100)\nprint('end', flush=True)\ntime.sleep(3600)"
    runner(build(flood), GIVE_UP)
    assert sum(map(len, runner.server_lines)) < runner.limits.log_bytes + 200
    # An engine that was slow to read has itself removed what was to be read next.
    assert "longer than" in runner.server_lines[-1] or any("may be missing" in line for line in runner.server_lines)


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
