"""Run a submission and its evaluator as a pair of containers.

Theory of operation
-------------------
Two containers, one network namespace, no network.

    submission   the participant's image. `--network none`: a loopback interface and nothing else. Read-only root, no
                 capabilities, no new privileges, uid 65532, the project's seccomp profile, bounded memory (swap
                 included), processes, CPU, files, temporary space and log. A GPU only by its UUID.
    evaluator    our image, under the same hardening. It joins that namespace (`--network container:<submission>`) and
                 speaks HTTP to 127.0.0.1. The suite is mounted read-only and a results directory writable: into this
                 container alone.

This process starts both, reads their output, watches for deaths, out-of-memory kills, the deadline and a cancellation,
and removes both, with their volumes, whatever happened. It never connects to the submission and opens no file that the
submission can write; `results.read_results` reads the evaluator's files as if they were hostile all the same.

Who may fail: the evaluator ends by itself (status 0, 2 or 3); the submission dies, and then the evaluator has `GRACE_S`
to finish, because a server may well stop after the last answer, and `WRITING_S` once it has said that it scores; the
deadline passes; someone cancels; the engine breaks
(InfraFault). `decide` turns the outcome into a verdict.

Not covered: a bug in the kernel or the engine. This is Docker, hardened; it is not a virtual machine.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

import docker

from tiltyard_sandbox.containers import RESULTS_MOUNT, SUITE_MOUNT, evaluator_options, submission_options
from tiltyard_sandbox.engine import ENGINE_ERRORS, first_ids, is_disk_full
from tiltyard_sandbox.images import volume_paths
from tiltyard_sandbox.limits import MIB, Limits
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason, SubmissionFault
from tiltyard_sandbox.watching import LinePump, OomWatch

__all__ = ["RESULTS_MOUNT", "SUITE_MOUNT", "EndedBy", "PairOutcome", "run_pair", "sweep"]

POLL_S: Final = 0.2
GRACE_S: Final = 10.0  # for the evaluator to notice that the submission died; WRITING_S once it is scoring
WRITING_S: Final = 60.0  # beyond the evaluator's own deadline, for scoring and writing
REMOVE_ATTEMPTS: Final = 5
EVALUATOR_OUTPUT_BYTES: Final = 32 * MIB
STDERR_TAIL_LINES: Final = 40
# What the engine and the runtime quote of an image: strings, and paths, which they do not always put into quotes.
_QUOTED: Final = re.compile(r"\\*\"(?:[^\"\\]|\\.)*\"")
_IMAGE_PATH: Final = re.compile(r"(?<!\S)(?!/sys/|/dev/|input/output\b)\S*/\S*")  # no VOLUME may lie below these two
_HOST_WORDS: Final = (
    *("nvidia", "nvml", "cgroup", "seccomp", "device", "no space", "input/output error"),
    *("cannot allocate memory", "resource temporarily unavailable", "too many open files"),
)
_FOLDER_WORDS: Final = ("not a directory", "mkdir", "working directory", "name too long", "levels of symbolic links")
_KNOWN_FIRST_IDS: Final[WeakKeyDictionary[docker.DockerClient, tuple[int, int]]] = WeakKeyDictionary()
_LOG = logging.getLogger(__name__)


class EndedBy(StrEnum):
    """What ended the pair."""

    EVALUATOR = "evaluator"  # it exited by itself
    SUBMISSION = "submission"  # it died, and the evaluator did not finish in the grace that followed
    DEADLINE = "deadline"


@dataclass(frozen=True)
class PairOutcome:
    """What happened to the two containers, before anyone judges it."""

    ended_by: EndedBy
    evaluator_exit: int | None  # None when it had to be stopped
    submission_exit: int | None  # None while it still ran at the end
    submission_oom: bool  # the kernel killed a process of the submission for memory
    evaluator_oom: bool
    wall_s: float
    evaluator_stderr: str = ""  # its end, for the operator alone: it may quote hidden questions
    cleanup_errors: tuple[str, ...] = ()


def run_pair(
    client: docker.DockerClient,
    *,
    submission_image: str,
    evaluator_image: str,
    evaluator_command: Sequence[str],
    suite_dir: Path,
    results_dir: Path,
    limits: Limits,
    run_labels: Mapping[str, str],
    on_evaluator_line: Callable[[str], None],
    on_server_log: Callable[[str], None],
    cancel: threading.Event,
    port: int = 8000,
) -> PairOutcome:
    """Run the submission and, in its empty network, the evaluator; remove both whatever happens.

    `evaluator_command` follows the evaluator image's entrypoint: `["run", "--url", "http://127.0.0.1:8000", "--suite",
    SUITE_MOUNT, "--out", RESULTS_MOUNT, …]`. Both callbacks run on threads of their own, one line a call: the
    evaluator's standard output, and the submission's whole output up to `limits.log_bytes`. `cancel` is heeded within
    seconds. `results_dir` is handed to the containers' account (uid 65532) when this process is root. Raises
    Cancelled, SubmissionFault (the container cannot start) or InfraFault.
    """
    with _Pair(client, cancel) as pair:
        try:
            pair.start_submission(submission_image, limits, run_labels, port)
            pair.listen(on_server_log, bytes_max=limits.log_bytes)
            options = evaluator_options(
                evaluator_image,
                command=evaluator_command,
                suite_dir=suite_dir,
                results_dir=results_dir,
                labels=run_labels,
                submission_id=pair.submission.id,
                first_ids=_first_ids(client),
            )
            if pair.start_evaluator(options):
                pair.listen(pair.noting(on_evaluator_line), bytes_max=EVALUATOR_OUTPUT_BYTES, stderr=False)
                pair.listen(pair.keep_stderr, bytes_max=EVALUATOR_OUTPUT_BYTES, stdout=False)
            ended_by = pair.wait(limits.start_s + limits.evaluate_s + WRITING_S)
            return pair.finish(ended_by)
        except ENGINE_ERRORS as error:
            raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error


def sweep(client: docker.DockerClient, labels: Mapping[str, str]) -> int:
    """Remove, by force and with volumes, every container that carries all of `labels`; how many there were.

    Raises ValueError without labels, and InfraFault when one resists.
    """
    if not labels:
        raise ValueError("sweep needs at least one label: without, it would remove every container of this machine")
    wanted = [f"{name}={value}" for name, value in labels.items()]
    try:
        strays = client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True)
    except ENGINE_ERRORS as error:
        raise InfraFault(f"The Docker engine failed: {str(error)[:300]}") from error
    problems = [problem for stray in strays if (problem := _remove(stray))]
    if problems:
        raise InfraFault("; ".join(problems))
    return len(strays)


class _Pair:
    """The two containers and their watchers; leaving the context removes them all."""

    def __init__(self, client: docker.DockerClient, cancel: threading.Event) -> None:
        self._client = client
        self._cancel = cancel
        self._begin = time.monotonic()
        self._containers: list[Any] = []  # the submission, then the evaluator
        self._pumps: list[LinePump] = []
        self._oom: OomWatch | None = None
        self._stderr_tail: list[str] = []
        self._is_scoring = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for error in self._remove_all():
            _LOG.error("%s", error)

    def start_submission(self, image: str, limits: Limits, labels: Mapping[str, str], port: int) -> None:
        """Raises SubmissionFault when the image's command cannot be started, or its settings are impossible."""
        config = self._client.images.get(image).attrs.get("Config") or {}
        options = submission_options(
            image,
            volumes=volume_paths(config),
            limits=limits,
            labels=labels,
            port=port,
            image_env=config.get("Env") or (),
        )
        try:
            submission = self._create(options)
        except docker.errors.APIError as error:
            raise _create_fault(error) from error
        self._oom = OomWatch(self._client, [submission.id])
        try:
            submission.start()
        except docker.errors.APIError as error:
            raise _start_fault(str(error.explanation)) from error

    @property
    def submission(self) -> Any:
        return self._containers[0]

    def start_evaluator(self, options: dict[str, Any]) -> bool:
        """False when the submission is dead by now: then there is no network to join, and `wait` finds out why."""
        evaluator = self._create(options)
        try:
            evaluator.start()
        except docker.errors.APIError as error:
            if not _state(self.submission)["Running"]:
                return False
            raise InfraFault(f"The evaluator's container cannot start: {str(error.explanation)[:300]}") from error
        return True

    def listen(
        self, callback: Callable[[str], None], *, bytes_max: int, stdout: bool = True, stderr: bool = True
    ) -> None:
        """Begin to read what the container that was started last writes."""
        container_id = self._containers[-1].id
        pump = LinePump(self._client, container_id, callback, bytes_max=bytes_max, stdout=stdout, stderr=stderr)
        self._pumps.append(pump)

    def wait(self, time_s: float) -> EndedBy:
        """Until the evaluator ends, or must not go on; raises Cancelled."""
        deadline = time.monotonic() + time_s
        died_at: float | None = None
        submission, evaluator = self._containers
        while (status := _state(evaluator)["Status"]) not in {"exited", "dead"}:
            now = time.monotonic()
            if died_at is None and not _state(submission)["Running"]:
                died_at = now
            grace_s = WRITING_S if self._is_scoring.is_set() else GRACE_S
            if died_at is not None and (status == "created" or now > died_at + grace_s):
                return EndedBy.SUBMISSION
            if now > deadline:
                return EndedBy.DEADLINE
            self._raise_callback_errors()
            if self._cancel.wait(POLL_S):
                raise Cancelled
        return EndedBy.EVALUATOR

    def finish(self, ended_by: EndedBy) -> PairOutcome:
        """What happened, taken down before the containers are removed."""
        wall_s = time.monotonic() - self._begin
        submission, evaluator = (_state(container) for container in self._containers)
        for container in self._containers:
            _kill(container)
        for pump in self._pumps:
            pump.finish()
        self._raise_callback_errors()
        oom_ids = self._oom.killed if self._oom else set()
        return PairOutcome(
            ended_by=ended_by,
            evaluator_exit=evaluator["ExitCode"] if evaluator["Status"] == "exited" else None,
            submission_exit=None if submission["Running"] else submission["ExitCode"],
            submission_oom=bool(submission["OOMKilled"]) or self._containers[0].id in oom_ids,
            evaluator_oom=bool(evaluator["OOMKilled"]),
            wall_s=wall_s,
            evaluator_stderr="\n".join(self._stderr_tail),
            cleanup_errors=tuple(self._remove_all()),
        )

    def _create(self, options: dict[str, Any]) -> Any:
        if self._cancel.is_set():
            raise Cancelled
        container = self._client.containers.create(**options)
        self._containers.append(container)
        return container

    def noting(self, callback: Callable[[str], None]) -> Callable[[str], None]:
        """The callback, behind a look at whether the evaluator says that it has every answer."""

        def note(line: str) -> None:
            if _is_scoring(line):
                self._is_scoring.set()
            callback(line)

        return note

    def keep_stderr(self, line: str) -> None:
        """Remember the evaluator's last words."""
        self._stderr_tail = [*self._stderr_tail[1 - STDERR_TAIL_LINES :], line]

    def _raise_callback_errors(self) -> None:
        for pump in self._pumps:
            if pump.error is not None:
                raise InfraFault(f"The run's output could not be recorded: {pump.error}") from pump.error

    def _remove_all(self) -> list[str]:
        """Remove what is left, the evaluator first; the errors, as texts."""
        if self._oom is not None:
            self._oom.stop()
            self._oom = None
        errors = []
        while self._containers:
            error = _remove(self._containers.pop())
            if error:
                errors.append(error)
        for pump in self._pumps:
            pump.finish()
        self._pumps = []
        return errors


def _first_ids(client: docker.DockerClient) -> tuple[int, int]:
    """See `engine.first_ids`; asked once for a client, because the answer takes the engine a while."""
    if client not in _KNOWN_FIRST_IDS:
        _KNOWN_FIRST_IDS[client] = first_ids(client.info())
    return _KNOWN_FIRST_IDS[client]


def _is_scoring(line: str) -> bool:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(event, dict) and event.get("event") == "stage" and event.get("stage") == "scoring"


def _state(container: Any) -> dict[str, Any]:
    container.reload()
    state: dict[str, Any] = container.attrs["State"]
    return state


def _kill(container: Any) -> None:
    """SIGKILL at once: SIGTERM, and the image's STOPSIGNAL, are the submission's to ignore."""
    try:
        container.kill()
    except docker.errors.APIError as error:
        if error.status_code not in {404, 409}:  # gone, or not running
            raise


def _remove(container: Any) -> str | None:
    """Kill and remove with volumes, tried a few times; the error's text when it stays."""
    problem = ""
    for attempt in range(REMOVE_ATTEMPTS):
        try:
            container.remove(force=True, v=True)
            return None
        except docker.errors.NotFound:
            return None
        except ENGINE_ERRORS as error:
            problem = str(error)[:200]
            time.sleep(0.1 * 2**attempt)
    return f"Container {container.id[:12]} could not be removed: {problem}"


def _create_fault(error: docker.errors.APIError) -> SubmissionFault | InfraFault:
    """What the engine refuses before anything runs: the options are ours and tried, so what varies is the image."""
    explanation = str(error.explanation)
    about_folder = any(text in explanation.lower() for text in _FOLDER_WORDS)
    if not is_disk_full(explanation) and (error.status_code == 400 or (error.status_code == 500 and about_folder)):
        return SubmissionFault(
            Reason.IMAGE_REJECTED,
            f"The engine makes no container of the image; see its WORKDIR and VOLUME lines: {explanation[-300:]}",
        )
    return InfraFault(f"The submission's container cannot be made: {explanation[:300]}")


def _start_fault(explanation: str) -> SubmissionFault | InfraFault:
    """The runtime's complaint about the image's command or folders is the submission's; about the host, ours."""
    low = explanation.lower()
    about_image = "oci runtime create failed" in low or "failed to create shim task" in low
    own_words = _IMAGE_PATH.sub("", _QUOTED.sub("", low))
    about_host = any(word in own_words for word in _HOST_WORDS)
    if about_image and not about_host:
        return SubmissionFault(Reason.CRASHED, f"The server's command cannot be started: {explanation[-300:]}")
    return InfraFault(f"The submission's container cannot start: {explanation[:300]}")
