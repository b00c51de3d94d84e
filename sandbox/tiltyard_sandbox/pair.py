"""The pair of containers. (Being filled in; this interface stays.)"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import docker

from tiltyard_sandbox.limits import Limits

SUITE_MOUNT: Final = "/suite"  # where the evaluator finds the suite, read-only
RESULTS_MOUNT: Final = "/results"  # and where it writes: pass `--suite /suite --out /results`


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
    SUITE_MOUNT, "--out", RESULTS_MOUNT, …]`. Both callbacks run on threads of their own, one line a call. `cancel` is
    heeded within seconds. Raises Cancelled, SubmissionFault (the container cannot start) or InfraFault.
    """
    raise NotImplementedError


def sweep(client: docker.DockerClient, labels: Mapping[str, str]) -> int:
    """Remove, by force and with volumes, every container that carries all of `labels`; how many there were."""
    raise NotImplementedError
