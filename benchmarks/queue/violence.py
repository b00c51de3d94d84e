"""Acts of violence against the chaos benchmark's site, by a seeded choice; what was killed is started again."""

import collections
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import docker
import redis
import requests
from system import Part, System

ENGINE_HANGS_S = (1.0, 8.0)
ENGINE_STOP_S = 40.0
STARTS_MAX = 10


class Violence:
    """A thread that kills, stops and empties parts of the site until it is told to end; `done` counts by kind."""

    def __init__(self, system: System, chance: random.Random, *, mean_pause_s: float, sleep_s: float) -> None:
        self.done: collections.Counter[str] = collections.Counter()
        self._system = system
        self._engine = system.engine
        self._chance = chance
        self._mean_pause_s = mean_pause_s
        self._sleep_s = sleep_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._sleepers: list[threading.Thread] = []
        self._asleep: set[Part] = set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        for sleeper in self._sleepers:
            sleeper.join()

    def _acts(self) -> dict[Callable[[], None], int]:
        """What may be done, with its weight in the choice."""
        acts: dict[Callable[[], None], int] = {
            self._kill_worker: 5,
            self._put_to_sleep: 2,
            self._drain: 2,
            lambda: self._kill(self._system.maintenance): 1,
            lambda: self._kill(self._system.web): 2,
            lambda: self._kill(self._system.redis): 2,
            self._flush_redis: 1,
            lambda: self._kill(self._system.postgres): 2,
        }
        if self._engine is None:
            return acts | {self._kill_child: 3}
        return acts | {
            self._kill_evaluator: 4,
            self._kill_engine: 3,
            self._restart_engine: 2,
            self._hang_engine: 1,
        }

    def _run(self) -> None:
        acts = self._acts()
        while not self._stop.wait(self._chance.expovariate(1 / self._mean_pause_s)):
            (act,) = self._chance.choices(list(acts), weights=list(acts.values()))
            act()
            # A worker that finds no engine at its start ends by itself.
            self.done["parts that had ended started again"] += len(self._system.keep_up())

    def _kill(self, part: Part) -> None:
        part.kill()
        self.done[f"{part.name.split('-')[0]} killed"] += 1
        self._start_soon(part)

    def _start_soon(self, part: Part) -> None:
        """As a service manager does, which tries again: an engine may find the last one's containerd half dead."""
        for _ in range(STARTS_MAX):
            time.sleep(self._chance.uniform(0, 2))
            try:
                part.start()
            except SystemExit as problem:
                self.done[f"{part.name} started again"] += 1
                print(problem, file=sys.stderr)
                part.kill()
            else:
                return

    def _awake_worker(self) -> Part | None:
        awake = [worker for worker in self._system.workers if worker not in self._asleep]
        return self._chance.choice(awake) if awake else None

    def _kill_worker(self) -> None:
        if (worker := self._awake_worker()) is not None:
            self._kill(worker)

    def _kill_child(self) -> None:
        groups = {worker.pid for worker in self._system.workers}
        running = [pid for pid, name, group in _processes() if name == "sleep" and group in groups]
        if running:
            try:
                signal.pidfd_send_signal(os.pidfd_open(self._chance.choice(running)), signal.SIGKILL)
            except ProcessLookupError:
                return
            self.done["evaluation killed"] += 1

    def _kill_evaluator(self) -> None:
        """SIGKILL to an evaluator's container, as the kernel does that runs short of memory."""
        assert self._engine is not None  # noqa: S101  only then it is among the acts
        try:
            running = self._engine.containers("evaluator")
            if running:
                self._chance.choice(running).kill()
                self.done["evaluator's container killed"] += 1
        except (docker.errors.DockerException, requests.exceptions.RequestException):
            return  # it has just ended

    def _kill_engine(self) -> None:
        assert self._engine is not None  # noqa: S101
        self._kill(self._engine.part)

    def _restart_engine(self) -> None:
        """As `systemctl restart docker` does: the engine ends its containers, then itself."""
        assert self._engine is not None  # noqa: S101
        kind = "engine asked to stop" if self._engine.part.ask_to_stop(ENGINE_STOP_S) else "engine killed"
        self.done[kind] += 1
        self._start_soon(self._engine.part)

    def _hang_engine(self) -> None:
        assert self._engine is not None  # noqa: S101
        self._engine.part.signal(signal.SIGSTOP)
        time.sleep(self._chance.uniform(*ENGINE_HANGS_S))
        self._engine.part.signal(signal.SIGCONT)
        self.done["engine stopped and woken"] += 1

    def _put_to_sleep(self) -> None:
        """A worker that does not know that it was given up for dead: it wakes long after its lease was over."""
        worker = self._awake_worker()
        if worker is None:
            return
        self._asleep.add(worker)
        worker.signal(signal.SIGSTOP)
        self.done["worker stopped and woken"] += 1

        def wake() -> None:
            self._stop.wait(self._sleep_s)
            worker.signal(signal.SIGCONT)
            self._asleep.discard(worker)

        self._sleepers.append(threading.Thread(target=wake))
        self._sleepers[-1].start()

    def _drain(self) -> None:
        worker = self._awake_worker()
        if worker is not None:
            self.done["worker drained" if worker.ask_to_stop(20) else "worker that did not drain killed"] += 1
            worker.start()

    def _flush_redis(self) -> None:
        with redis.Redis(port=self._system.redis_port) as client:
            client.flushall()
        self.done["redis emptied"] += 1


def _processes() -> list[tuple[int, str, int]]:
    """(process id, name, process group) of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = path.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid, _, name = head.partition(" (")
        found.append((int(pid), name, int(tail.split()[2])))
    return found
