"""One attempt at a run: prepare, build, evaluate every suite, score. Each stage has its deadline in the sandbox."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from django.conf import settings
from django.db import Error as DatabaseFault
from django.utils import timezone

from tiltyard.competitions.models import Suite
from tiltyard.evaluation import EvaluatorFault, PreparedImage, evaluate_suite, prepare_image
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import FailureReason, RunState
from tiltyard.worker.failures import INFRA, LOG_END_LINES, hidden_message, with_log_end
from tiltyard.worker.heartbeat import Heartbeat
from tiltyard.worker.logs import CappedLog
from tiltyard.worker.progress import suite_progress
from tiltyard.worker.recording import ScoredSuite, check_suite, record_scores
from tiltyard.worker.strays import labels_of, results_dir, sweep_strays
from tiltyard_sandbox.engine import ENGINE_ERRORS, connect
from tiltyard_sandbox.images import remove_image
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason, SubmissionFault

logger = logging.getLogger(__name__)


class _TakenAway(Exception):  # noqa: N818 - another worker has the run; nothing is left to write
    pass


def execute(run_id: uuid.UUID | str, worker: str) -> None:
    """Claim the run and bring it to its end; a run that someone else has, or that is over, is left alone."""
    run = Run.claim(run_id, worker, timezone.now())
    if run is None:
        logger.info("run %s is not there to be claimed", run_id)
        return
    with Heartbeat(run) as heartbeat:
        attempt = _Attempt(run, heartbeat)
        try:
            attempt.perform()
        except _TakenAway:
            logger.warning("run %s attempt %d was taken away", run.pk, run.attempt)
        except SubmissionFault as fault:
            attempt.fail(fault)
        except Cancelled:
            attempt.cancelled()
        except InfraFault as fault:
            logger.error("run %s attempt %d: %s", run.pk, run.attempt, fault.message)
            retry_or_fail(run)
        except DatabaseFault:
            # Nothing can be written now; the lease runs out and the reaper queues the run again.
            logger.exception("run %s attempt %d lost the database", run.pk, run.attempt)
        except Exception:  # the worker's boundary: whatever it was, the run must not stay under way for ever
            logger.exception("run %s attempt %d failed unexpectedly", run.pk, run.attempt)
            retry_or_fail(run)


def retry_or_fail(run: Run) -> None:
    """After a failure of ours: queue again, or give up after RUN_ATTEMPTS_MAX; a requested cancellation comes first."""
    if run.is_cancel_requested():
        run.transition(RunState.CANCELLED, "Cancelled.")
    elif run.attempt < settings.RUN_ATTEMPTS_MAX:
        is_queued = run.transition(RunState.QUEUED, "The platform had a problem; the run is queued again.")
        if not is_queued and run.is_cancel_requested():  # the request came in between
            run.transition(RunState.CANCELLED, "Cancelled.")
    else:
        run.transition(
            RunState.FAILED,
            "The platform failed repeatedly.",
            failure_reason=FailureReason.INFRA_ERROR,
            failure_message=INFRA,
        )


class _Attempt:
    def __init__(self, run: Run, heartbeat: Heartbeat) -> None:
        self._run = run
        self._heartbeat = heartbeat
        self._labels = labels_of(run)
        self._limits = run.submission.track.sandbox_limits(
            gpu_uuid=settings.WORKER_GPU_UUID or None if run.submission.track.needs_gpu else None
        )
        self._build_log = CappedLog()
        self._server_log = CappedLog()
        heartbeat.watch("build_log", self._build_log)
        heartbeat.watch("server_log", self._server_log)

    def perform(self) -> None:
        client = connect()
        try:
            self._perform(client)
        except ENGINE_ERRORS as error:
            raise InfraFault(f"The Docker engine failed: {error}") from error
        finally:
            client.close()

    def fail(self, fault: SubmissionFault) -> None:
        self._flush_logs()
        self._run.transition(
            RunState.FAILED,
            fault.message.split("\n", 1)[0],
            failure_reason=fault.reason.value,
            failure_message=fault.message,
        )

    def cancelled(self) -> None:
        self._flush_logs()
        if self._heartbeat.was_requested:
            self._run.transition(RunState.CANCELLED, "Cancelled; the containers are gone.")
        else:
            logger.warning("run %s attempt %d stopped without a request", self._run.pk, self._run.attempt)

    def _perform(self, client: docker.DockerClient) -> None:
        sweep_strays(client)
        suites = list(self._run.submission.competition.suites.filter(is_active=True).order_by("order"))
        self._check_machine(client, suites)
        self._move(RunState.BUILDING, "Preparing the image.")
        image = self._prepare(client)
        try:
            self._move(RunState.EVALUATING, "The image is ready; the evaluation begins.", image_digest=image.digest)
            scored = self._evaluate(client, image, suites)
        finally:
            self._remove(client, image)
        self._flush_logs()
        self._move(RunState.SCORING, "Every question was asked; scoring.")
        if not record_scores(self._run, scored):
            raise _TakenAway

    def _check_machine(self, client: docker.DockerClient, suites: list[Suite]) -> None:
        """Find out what is missing here before a build is spent on it."""
        if not suites:
            raise InfraFault("The competition has no active suite.")
        for suite in suites:
            if not suite.directory.is_dir():
                raise InfraFault(f"The suite {suite.name} {suite.sha256} is not on this machine.")
        if not self._run.submission.artefact.path.is_file():
            raise InfraFault(f"The artefact {self._run.submission.artefact.sha256} is not on this machine.")
        if self._run.submission.track.needs_gpu and not settings.WORKER_GPU_UUID:
            raise InfraFault("The track needs a GPU, and TILTYARD_WORKER_GPU_UUID is not set on this worker.")
        try:
            client.images.get(settings.EVALUATOR_IMAGE)
        except docker.errors.ImageNotFound:
            raise InfraFault(f"The evaluator's image {settings.EVALUATOR_IMAGE} is not on this machine.") from None

    def _prepare(self, client: docker.DockerClient) -> PreparedImage:
        return prepare_image(
            client,
            self._run.submission.artefact.path,
            allowed_bases=self._run.submission.competition.base_images,
            limits=self._limits,
            on_log=self._build_log.add,
            cancel=self._heartbeat.cancel,
            digest_cache=Path(settings.WORK_DIR) / "digests.json",
        )

    def _evaluate(self, client: docker.DockerClient, image: PreparedImage, suites: list[Suite]) -> list[ScoredSuite]:
        self._heartbeat.report(items_total=sum(suite.item_count for suite in suites))
        scored: list[ScoredSuite] = []
        for suite in suites:
            items_before = sum(one.suite.item_count for one in scored)
            self._heartbeat.report(current_suite=suite.title, items_done=items_before)
            scored.append(self._evaluate_one(client, image, suite, items_before))
        return scored

    def _evaluate_one(
        self, client: docker.DockerClient, image: PreparedImage, suite: Suite, items_before: int
    ) -> ScoredSuite:
        def on_items_done(items_done: int) -> None:
            self._heartbeat.report(items_done=items_before + items_done)

        with results_dir(self._run) as directory, _evaluator_log(suite):
            outcome = evaluate_suite(
                client,
                image=image,
                suite_dir=suite.directory,
                results_dir=directory,
                limits=self._limits,
                adapter=image.manifest.adapter,
                seed=self._run.submission.competition.evaluation_seed,
                evaluator_image=settings.EVALUATOR_IMAGE,
                on_progress=suite_progress(suite, on_items_done),
                on_server_log=_discard if suite.is_hidden else self._server_log.add,
                cancel=self._heartbeat.cancel,
                labels=self._labels,
            )
        if outcome.reason is not None:
            raise SubmissionFault(outcome.reason, self._failure_message(suite, outcome.reason, outcome.message))
        if outcome.result is None:
            raise InfraFault("The evaluation gave neither a score nor a reason.")
        check_suite(suite, outcome.result)
        on_items_done(suite.item_count)
        return ScoredSuite(suite, outcome.result, outcome.samples)

    def _failure_message(self, suite: Suite, reason: Reason, message: str) -> str:
        if suite.is_hidden:
            return hidden_message(reason)
        return with_log_end(message, self._server_log.last_lines(LOG_END_LINES))

    def _flush_logs(self) -> None:
        """Have the logs in the row before the state says that it is over; a failed write is not worth a failed run."""
        try:
            self._heartbeat.flush()
        except DatabaseFault:
            logger.warning("the logs of run %s could not be written", self._run.pk)

    def _move(self, to: RunState, message: str, **fields: Any) -> None:
        if not self._run.transition(to, message, **fields):
            raise _TakenAway

    def _remove(self, client: docker.DockerClient, image: PreparedImage) -> None:
        """Free the disk. A left-over image costs space, not correctness, so it does not fail the run."""
        try:
            remove_image(client, image.image_id)
        except (InfraFault, *ENGINE_ERRORS) as error:
            logger.warning("image %s could not be removed: %s", image.image_id, error)


@contextmanager
def _evaluator_log(suite: Suite) -> Iterator[None]:
    """Put the failed evaluator's last words into the operator's log, unless hidden questions could be among them."""
    try:
        yield
    except EvaluatorFault as fault:
        if not suite.is_hidden:
            logger.error("the evaluator printed:\n%s", fault.stderr)
        raise


def _discard(_line: str) -> None:
    """Of a hidden suite nothing that the server printed is kept: its questions could be in it."""
