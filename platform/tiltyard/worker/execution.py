"""One attempt at a run: prepare, build, evaluate every suite, score. Each stage has its deadline in the sandbox."""

import logging
import traceback
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
from tiltyard.evaluation import (
    Meter,
    PreparedImage,
    Usage,
    evaluate_suite,
    evaluator_digest,
    prepare_image,
    release_image,
)
from tiltyard.operations.logs import about_run
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import FailureReason, RunState
from tiltyard.submissions.stores import StoreError, store
from tiltyard.worker import draining
from tiltyard.worker.engine_watch import EngineWatch
from tiltyard.worker.failures import INFRA, LOG_END_LINES, hidden_message, with_log_end
from tiltyard.worker.fitness import Machine, Unfit, fit_machine
from tiltyard.worker.gpus import HeldGpu, held_gpu
from tiltyard.worker.heartbeat import Heartbeat
from tiltyard.worker.logs import CappedLog
from tiltyard.worker.progress import suite_progress
from tiltyard.worker.publishing import publish, ring_for_the_next
from tiltyard.worker.recording import ScoredSuite, check_suite, record_failure, record_scores
from tiltyard.worker.strays import labels_of, owner_of, results_dir, scratch_dir, sweep_strays, try_to_sweep
from tiltyard.worker.withholding import untold
from tiltyard.worker.writing import persist
from tiltyard_sandbox.engine import ENGINE_ERRORS
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, Reason, SubmissionFault

logger = logging.getLogger(__name__)

UNFIT_PAUSE_S = 15.0


class _TakenAway(Exception):  # noqa: N818 - another worker has the run; nothing is left to write
    pass


def execute(run_id: uuid.UUID | str, worker: str) -> None:
    """Answer a run's message: claim the run whose turn it is in that queue, and bring it to its end.

    The message only says that something waits. A worker that is not fit takes nothing: it sees to it that another one
    is told, and rests, so that it does not eat the queue's messages.
    """
    queue = Run.objects.filter(pk=run_id).values_list("queue", flat=True).first()
    if queue is None:
        logger.info("run %s is gone", run_id)
        return
    try:
        with held_gpu(worker) as gpu, fit_machine() as machine:
            run = None if draining.is_requested() else Run.claim_next(queue, worker, timezone.now())
            if run is not None:
                _attempt(run, machine, gpu)
    except Unfit as problem:
        logger.error("this worker takes no run: %s", problem)
        ring_for_the_next(queue)
        draining.pause(UNFIT_PAUSE_S)
        return
    if run is not None:
        try_to_sweep()  # the attempt is over, so whatever the engine has finished since belongs to nobody
    ring_for_the_next(queue)


def _attempt(run: Run, machine: Machine, gpu: HeldGpu | None) -> None:
    with about_run(run.pk, run.attempt), Heartbeat(run, gpu) as heartbeat:
        try:
            attempt = _Attempt(run, heartbeat, machine, gpu)
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
        except Exception as error:  # the worker's boundary: whatever it was, the run must not stay under way for ever
            # Where it happened, and not what it says: that may quote what was being read, a hidden question included.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error(
                "run %s attempt %d failed unexpectedly: %s at\n%s", run.pk, run.attempt, type(error).__name__, where
            )
            retry_or_fail(run)


def retry_or_fail(run: Run) -> None:
    """After a failure of ours: queue again, or give up after RUN_ATTEMPTS_MAX of them."""
    faults = run.faults + 1
    if faults < settings.RUN_ATTEMPTS_MAX:
        queue_again(run, "The platform had a problem; the run is queued again.", faults=faults)
    elif run.is_cancel_requested():
        run.transition(RunState.CANCELLED, "Cancelled.")
    else:
        run.transition(
            RunState.FAILED,
            "The platform failed repeatedly.",
            faults=faults,
            failure_reason=FailureReason.INFRA_ERROR,
            failure_message=INFRA,
        )


def queue_again(run: Run, message: str, **fields: Any) -> bool:
    """Queue a run again that this attempt holds, or cancel it where someone wants that; whether it is queued."""
    if run.is_cancel_requested():
        run.transition(RunState.CANCELLED, "Cancelled.")
        return False
    is_queued = run.transition(RunState.QUEUED, message, **fields)
    if not is_queued and run.is_cancel_requested():  # the request came in between
        run.transition(RunState.CANCELLED, "Cancelled.")
    return is_queued


class _Attempt:
    def __init__(self, run: Run, heartbeat: Heartbeat, machine: Machine, gpu: HeldGpu | None) -> None:
        self._run = run
        self._heartbeat = heartbeat
        self._client = machine.client
        self._evaluator_image = machine.evaluator_image
        self._gpu = gpu if run.submission.track.needs_gpu else None
        self._labels = labels_of(run)
        self._limits = run.submission.track.sandbox_limits(
            gpu_uuid=self._gpu.gpu.uuid if self._gpu else None,
            cpuset=settings.WORKER_CPUS or None,
            runtime=settings.WORKER_RUNTIME or None,
        )
        self._usage: Usage | None = None  # of the suites that were begun
        self._build_log = CappedLog()
        self._server_log = CappedLog()
        heartbeat.watch("build_log", self._build_log)
        heartbeat.watch("server_log", self._server_log)

    def perform(self) -> None:
        try:
            with EngineWatch(self._client) as watch:
                try:
                    self._perform(self._client)
                except SubmissionFault:
                    watch.require_undisturbed()
                    raise
        except ENGINE_ERRORS as error:
            raise InfraFault(f"The Docker engine failed: {error}") from error

    def fail(self, fault: SubmissionFault) -> None:
        self._flush_logs()
        persist(self._run, RunState.FAILED, lambda: record_failure(self._run, fault, self._usage))

    def cancelled(self) -> None:
        self._flush_logs()
        if self._heartbeat.was_requested:
            self._run.transition(RunState.CANCELLED, "Cancelled; the containers are gone.")
        elif self._heartbeat.was_drained:
            if queue_again(self._run, "The worker was stopped; the run is queued again."):
                publish(self._run)
        else:
            logger.warning("run %s attempt %d stopped without a request", self._run.pk, self._run.attempt)

    def _perform(self, client: docker.DockerClient) -> None:
        sweep_strays(client)
        suites = self._run.active_suites
        evaluator_image_digest = self._check_machine(client, suites)
        self._move(RunState.BUILDING, "Preparing the image.")
        image = self._prepare(client)
        try:
            self._move(RunState.EVALUATING, "The image is ready; the evaluation begins.", image_digest=image.digest)
            scored = self._evaluate(client, image, suites)
        finally:
            self._remove(client, image)
        self._flush_logs()
        self._move(RunState.SCORING, "Every question was asked; scoring.")
        if not persist(
            self._run, RunState.SCORED, lambda: record_scores(self._run, scored, evaluator_image_digest, self._usage)
        ):
            raise _TakenAway

    def _check_machine(self, client: docker.DockerClient, suites: list[Suite]) -> str:
        """Find out what is missing here before a build is spent on it; returns the evaluator's image digest."""
        if not suites:
            raise InfraFault("The competition has no active suite.")
        for suite in suites:
            if not suite.directory.is_dir():
                raise InfraFault(f"The suite {suite.name} {suite.sha256} is not on this machine.")
        sha256 = self._run.submission.artefact.sha256
        try:
            is_there = store().holds(sha256)
        except StoreError as error:
            raise InfraFault(str(error)) from error
        if not is_there:
            raise InfraFault(f"The store of artefacts does not have {sha256}.")
        if self._run.submission.track.needs_gpu and self._gpu is None:
            raise InfraFault("The track needs a GPU, and TILTYARD_WORKER_GPU_UUID is not set on this worker.")
        return evaluator_digest(client, self._evaluator_image, _digest_cache())

    def _prepare(self, client: docker.DockerClient) -> PreparedImage:
        competition = self._run.submission.competition
        try:
            # Should this worker be killed, others find what is there by the run, as they do with results.
            with store().fetched(self._run.submission.artefact.sha256) as archive, scratch_dir(self._run) as scratch:
                return prepare_image(
                    client,
                    archive,
                    allowed_bases=competition.base_images,
                    registries=competition.registries,
                    limits=self._limits,
                    on_log=self._build_log.add,
                    cancel=self._heartbeat.cancel,
                    owner=owner_of(self._run),
                    gauge_image=self._evaluator_image,
                    digest_cache=_digest_cache(),
                    scratch=scratch,
                )
        except StoreError as error:
            raise InfraFault(str(error)) from error

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

        with results_dir(self._run) as directory, untold(suite), self._metered(client):
            outcome = evaluate_suite(
                client,
                image=image,
                suite_dir=suite.directory,
                results_dir=directory,
                limits=self._limits,
                adapter=image.manifest.adapter,
                seed=self._run.submission.competition.evaluation_seed,
                evaluator_image=self._evaluator_image,
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

    @contextmanager
    def _metered(self, client: docker.DockerClient) -> Iterator[None]:
        meter = Meter(client, self._labels, self._gpu.read if self._gpu else None)
        try:
            with meter:
                yield
        finally:
            self._usage = meter.usage if self._usage is None else self._usage + meter.usage

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
        if not persist(self._run, to, lambda: self._run.transition(to, message, **fields)):
            raise _TakenAway

    def _remove(self, client: docker.DockerClient, image: PreparedImage) -> None:
        """Free the disk. A left-over image costs space, not correctness, so it does not fail the run."""
        try:
            release_image(client, image)
        except (InfraFault, *ENGINE_ERRORS) as error:
            logger.warning("image %s could not be removed: %s", image.image_id, error)


def _digest_cache() -> Path:
    return Path(settings.WORK_DIR) / "digests.json"


def _discard(_line: str) -> None:
    """Of a hidden suite nothing that the server printed is kept: its questions could be in it."""
