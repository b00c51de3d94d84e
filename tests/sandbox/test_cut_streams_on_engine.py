"""Streams of a real engine that break in the middle of a pair, as proxies cut them: nothing is lost or told twice."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest
from cut_connections import Cutter, cutter
from pairs_for_tests import GIVE_UP, PYTHON_IMAGE, WAIT, Runner
from second_engine import second_engine

from tiltyard_sandbox import watching
from tiltyard_sandbox.decide import ReportedFailure, decide
from tiltyard_sandbox.engine import ENGINE_ERRORS
from tiltyard_sandbox.limits import MIB, Limits
from tiltyard_sandbox.pair import EndedBy, sweep
from tiltyard_sandbox.verdicts import InfraFault, Reason
from tiltyard_sandbox.watching import LinePump, Reached

pytestmark = [pytest.mark.docker, pytest.mark.slow]

Build = Callable[..., str]
STARTUP = ReportedFailure("start_timeout", "The server was not ready after 3 s.")


@pytest.fixture
def way(client: docker.DockerClient, tmp_path: Path) -> Iterator[Cutter]:
    """A proxy before the machine's engine."""
    address = str(client.api.base_url)
    if not address.startswith("http+docker://"):
        pytest.skip("the engine is not on this machine's usual socket")
    with cutter("/var/run/docker.sock", socket_path=tmp_path / "proxy.sock") as made:
        yield made


@pytest.fixture
def runner(way: Cutter, tmp_path: Path, limits: Limits) -> Iterator[Runner]:
    """Its engine is behind the proxy."""
    (tmp_path / "runner").mkdir(mode=0o755)
    with closing(docker.DockerClient(base_url=way.url, version="1.41", timeout=60)) as client:
        one = Runner(client, tmp_path / "runner", limits)
        yield one
        left = [container.id for container in one.containers()]
        sweep(client, one.labels)
        assert left == []


COUNT = """
import sys, time
for number in range(80):
    print("number", number, file=sys.stdout if number % 2 else sys.stderr, flush=True)
    time.sleep(0.05)
print("x" * 40000, flush=True)
time.sleep(3600)
"""


def test_output_goes_on_where_its_stream_was_cut(
    runner: Runner, way: Cutter, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "REOPEN_S", 0.1)
    is_over = threading.Event()

    def cut_again_and_again() -> None:
        while not is_over.wait(0.5):
            way.cut("/logs")

    thread = threading.Thread(target=cut_again_and_again)
    thread.start()
    try:
        evaluator = "import time\nfor n in range(80): print('asked', n, flush=True); time.sleep(0.05)\ntime.sleep(6)"
        outcome = runner(build(COUNT), evaluator)
    finally:
        is_over.set()
        thread.join()
    assert outcome.ended_by is EndedBy.EVALUATOR
    assert way.cuts >= 8
    assert runner.evaluator_lines == [f"asked {number}" for number in range(80)]
    numbers, rest = runner.server_lines[:80], runner.server_lines[80:]
    assert numbers == [f"number {number}" for number in range(80)]
    assert "".join(rest) == "x" * 40000  # in pieces, as the engine keeps it


def test_without_opening_it_again_the_rest_is_lost(
    runner: Runner, way: Cutter, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr(watching.LastingStream, "_is_reopened", lambda _: False)

    class Lines(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if line == "number 9":
                assert way.cut("/logs") > 0

    runner.server_lines = Lines()
    runner(build(COUNT), "import time; time.sleep(5)")
    assert 10 <= len(runner.server_lines) < 80


CHILD_BOMB = """
import subprocess, sys, time
print("ready", flush=True)
time.sleep(0.5)
subprocess.run([sys.executable, "-c", "x = []\\nwhile True: x.append(bytearray(1 << 20))"])
print("child died", flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize(("opens_again", "reason"), [(True, Reason.OUT_OF_MEMORY), (False, Reason.START_TIMEOUT)])
def test_a_kill_while_nobody_listens_is_heard_of_afterwards(
    runner: Runner,
    way: Cutter,
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    *,
    opens_again: bool,
    reason: Reason,
) -> None:
    """And the control: a watch that does not listen again takes the server for one that never got ready."""
    died_s: list[float] = []
    cut_s: list[float] = []

    class Lines(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if line == "ready":
                assert way.cut("/events") == 1
                cut_s.append(time.monotonic())
            if line == "child died":
                died_s.append(time.monotonic())

    runner.server_lines = Lines()
    monkeypatch.setattr(watching, "REOPEN_S", 6.0)
    if not opens_again:
        monkeypatch.setattr(watching.LastingStream, "_is_reopened", lambda _: False)
    give_up = GIVE_UP.replace("sleep(2)", "sleep(14)")
    outcome = runner(build(CHILD_BOMB), give_up, memory_bytes=64 * MIB)
    [cut], [died] = cut_s, died_s
    assert died - cut < 6.0, "it died when the watch listened again"
    assert decide(outcome, STARTUP).reason is reason


def test_a_stream_of_a_container_that_is_gone_is_over(client: docker.DockerClient, way: Cutter) -> None:
    with closing(docker.DockerClient(base_url=way.url, version="1.41", timeout=60)) as own:
        container = client.containers.run(PYTHON_IMAGE, ["sleep", "600"], detach=True)
        pump = LinePump(own, container.id, print, bytes_max=1000)
        try:
            assert not pump.is_over
        finally:
            container.remove(force=True)
        way.cut("/logs")
        deadline = time.monotonic() + 20
        while not pump.is_over:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert pump.error is None
        pump.finish()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the SDK's sockets that could not connect
def test_an_engine_that_is_killed_ends_the_pair_as_our_fault(
    client: docker.DockerClient, tmp_path: Path, limits: Limits
) -> None:
    """Its streams break and do not come back: the pair ends within seconds, and nobody blames the submission."""
    with second_engine() as engine:
        with engine.running():
            engine.fill(client, PYTHON_IMAGE)
            own = docker.DockerClient(base_url=engine.url, timeout=60)
            runner = Runner(own, tmp_path, limits)
            failed: list[Exception] = []
            server = ["python3", "-c", "import time; print('serving', flush=True); time.sleep(3600)"]
            container = own.containers.create(PYTHON_IMAGE)
            image = str(container.commit(conf={"Cmd": server}).id)
            container.remove()

            def run() -> None:
                try:
                    runner(image, WAIT)
                except Exception as error:
                    failed.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            deadline = time.monotonic() + 60
            while "serving" not in runner.server_lines:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        ended_s = time.monotonic()
        thread.join(60)
        assert not thread.is_alive()
        assert time.monotonic() - ended_s < 30
        own.close()
        [error] = failed
        assert isinstance(error, (InfraFault, *ENGINE_ERRORS)), error
        with engine.running(), closing(docker.DockerClient(base_url=engine.url, timeout=60)) as heir:
            sweep(heir, runner.labels)
            assert heir.containers.list(all=True) == []
    failed.clear()
    del error
    gc.collect()


@pytest.mark.parametrize(
    ("stamp", "since"),
    [
        (b"", None),
        (b"2026-11-29T22:29:54.123456789Z", "1795991394.123456789"),
        (b"2026-11-29T23:29:54.000000001+01:00", "1795991394.000000001"),
        (b"2026-11-29T22:29:54Z", "1795991394.0"),
    ],
)
def test_where_to_go_on(stamp: bytes, since: str | None) -> None:
    reached = Reached()
    assert list(reached.new_in(iter([stamp + b" a\n"] if stamp else []))) == ([b"a\n"] if stamp else [])
    assert reached.parameters() == ({"since": since} if since else {})


def test_lines_of_one_moment_are_told_once() -> None:
    reached = Reached()
    first = [b"1 a\n", b"2 b\n", b"2 c\n"]
    assert list(reached.new_in(iter(first))) == [b"a\n", b"b\n", b"c\n"]
    # The engine begins again at the last moment, of which one more line has come.
    assert list(reached.new_in(iter([b"2 b\n", b"2 c\n", b"2 d\n", b"3 e\n"]))) == [b"d\n", b"e\n"]
    assert list(reached.new_in(iter([b"3 e\n"]))) == []
