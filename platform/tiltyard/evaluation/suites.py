"""One suite asked of one image in a fresh pair of containers."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docker

from tiltyard.evaluation.images import PreparedImage
from tiltyard.evaluation.samples import SampleRow, SamplesError, parse_samples
from tiltyard_eval.results import MAX_RESULT_BYTES, Result, ResultError, load_result
from tiltyard_sandbox.decide import ReportedFailure, decide
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.pair import RESULTS_MOUNT, SUITE_MOUNT, run_pair
from tiltyard_sandbox.results import read_results
from tiltyard_sandbox.verdicts import InfraFault, Reason, SubmissionFault

PORT = 8000  # what TILTYARD_PORT says; images of the 2023 challenge listen on their own, whatever it says
PORT_2023 = 80
SAMPLES_BYTES_MAX = 256 << 20
_RESULT, _SAMPLES = "result.json", "samples.jsonl"
_PROGRESS_LINE_CHARS_MAX = 4096

# Called with the evaluator's stage (waiting, probing, asking, scoring) and the questions answered and asked in all.
OnProgress = Callable[[str, int, int], None]


class EvaluatorFault(InfraFault):
    """The evaluator failed. `stderr` is the end of what it printed, for an operator of an open suite alone."""

    def __init__(self, message: str, stderr: str = "") -> None:
        super().__init__(message)
        self.stderr = stderr


@dataclass(frozen=True)
class SuiteOutcome:
    """Scored, with a result and samples, or failed by the submission's fault, with a reason and a message."""

    status: Literal["scored", "failed"]
    reason: Reason | None
    message: str
    result: Result | None
    samples: tuple[SampleRow, ...]


def evaluate_suite(
    client: docker.DockerClient,
    *,
    image: PreparedImage,
    suite_dir: Path,
    results_dir: Path,
    limits: Limits,
    adapter: str,
    seed: int,
    evaluator_image: str,
    on_progress: OnProgress,
    on_server_log: Callable[[str], None],
    cancel: threading.Event,
    labels: Mapping[str, str],
) -> SuiteOutcome:
    """Run the image and the evaluator, wait, and read what the evaluator found.

    Args:
        client: The engine.
        image: From `prepare_image`.
        suite_dir: A locked suite; mounted into the evaluator's container only.
        results_dir: An empty directory for the evaluator's files.
        limits: Bounds of the submission's container; `start_s` and `evaluate_s` are its deadlines.
        adapter: `openai`, `native` or `neurips2023`.
        seed: The evaluator's seed: order of the questions and intervals.
        evaluator_image: The image whose entry point is the evaluator.
        on_progress: See `OnProgress`; called on another thread.
        on_server_log: Called with each line that the submission printed, on another thread.
        cancel: Stops both containers within seconds when set.
        labels: Labels of both containers, so that strays can be found.

    Raises:
        InfraFault: Something of ours failed; the same evaluation may be tried again. An EvaluatorFault when it was
            the evaluator.
        Cancelled: `cancel` was set.
    """
    command = evaluator_command(limits, adapter, seed, image.digest)
    try:
        outcome = run_pair(
            client,
            submission_image=image.image_id,
            evaluator_image=evaluator_image,
            evaluator_command=command,
            suite_dir=suite_dir,
            results_dir=results_dir,
            limits=limits,
            run_labels=labels,
            on_evaluator_line=ProgressReader(on_progress).feed,
            on_server_log=on_server_log,
            cancel=cancel,
            port=port_of(adapter),
        )
    except SubmissionFault as fault:
        return SuiteOutcome("failed", fault.reason, fault.message, None, ())
    result = _read_result(results_dir)
    failure = result.failure if result else None
    verdict = decide(outcome, ReportedFailure(failure.reason, failure.message) if failure else None)
    if verdict.reason is Reason.INFRA_ERROR:
        raise EvaluatorFault(verdict.message, outcome.evaluator_stderr)
    if verdict.reason is not None:
        return SuiteOutcome("failed", verdict.reason, verdict.message, None, ())
    if result is None or result.score is None:
        raise InfraFault("The evaluator ended well but left no result.")
    return SuiteOutcome("scored", None, verdict.message, result, _read_samples(results_dir, result))


class ProgressReader:
    """Turns the evaluator's event lines into calls; whatever is not an event is ignored."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._stage = "waiting"
        self._done = self._total = 0

    def feed(self, line: str) -> None:
        if len(line) > _PROGRESS_LINE_CHARS_MAX:
            return
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            return
        match event:
            case {"event": "stage", "stage": "waiting" | "probing" | "asking" | "scoring" as stage}:
                self._stage = stage
            case {"event": "progress", "done": int(done), "total": int(total)} if 0 <= done <= total:
                self._done, self._total = done, total
            case _:
                return
        self._on_progress(self._stage, self._done, self._total)


def port_of(adapter: str) -> int:
    """The loopback port at which a submission with this adapter answers."""
    return PORT_2023 if adapter == "neurips2023" else PORT


def evaluator_command(limits: Limits, adapter: str, seed: int, digest: str) -> list[str]:
    """What follows the evaluator image's entry point. Its deadline begins when the server is ready."""
    options = {
        "--url": f"http://127.0.0.1:{port_of(adapter)}",
        "--adapter": adapter,
        "--suite": SUITE_MOUNT,
        "--out": RESULTS_MOUNT,
        "--deadline": f"{limits.evaluate_s:g}",
        "--start-timeout": f"{limits.start_s:g}",
        "--seed": str(seed),
        "--image-digest": digest,
        "--progress": "json",
    }
    return ["run", *(part for option in options.items() for part in option)]


def _read_result(results_dir: Path) -> Result | None:
    content = read_results(results_dir, [_RESULT], MAX_RESULT_BYTES).get(_RESULT)
    try:
        return load_result(content) if content is not None else None
    except ResultError as error:
        raise InfraFault(f"The evaluator's result cannot be read: {error}.") from error


def _read_samples(results_dir: Path, result: Result) -> tuple[SampleRow, ...]:
    content = read_results(results_dir, [_SAMPLES], SAMPLES_BYTES_MAX).get(_SAMPLES)
    if content is None:
        raise InfraFault("The evaluator left no samples.")
    try:
        return parse_samples(content, result)
    except SamplesError as error:
        raise InfraFault(f"The evaluator's samples cannot be read: {error}.") from error
