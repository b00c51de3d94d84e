"""Evaluate a folder, an archive or an image in the server's sandbox, through the server's own module."""

import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

import docker

import tiltyard_eval
from tiltyard.cli import leftovers
from tiltyard.cli.errors import CliError, ExitCode
from tiltyard.cli.output import Output
from tiltyard.cli.plan import Plan, PlannedSuite
from tiltyard.cli.results import Evaluation, SuiteReport
from tiltyard.cli.targets import connect_engine, prepared_upload
from tiltyard.evaluation import PreparedImage, evaluate_suite, prepare_image, release_image
from tiltyard_sandbox.manifest import FILE_NAME
from tiltyard_sandbox.references import named_image
from tiltyard_sandbox.verdicts import Cancelled, InfraFault, SubmissionFault


def evaluate_target(output: Output, target: str, plan: Plan, results_dir: Path) -> Evaluation:
    """Build or load the image and ask it every suite of the plan. Raises CliError on a fault that is not its own."""
    evaluation = Evaluation(target)
    client = connect_engine()
    try:
        with (
            prepared_upload(target, output) as upload,
            _cancel_on_interrupt(output) as cancel,
            leftovers.evaluation(client, output) as owner,
        ):
            _require_image(client, plan.evaluator_image)
            if plan.evaluator_version not in {"", tiltyard_eval.__version__}:
                output.note(
                    f"Warning: the server's evaluator is {plan.evaluator_version}, this one is "
                    f"{tiltyard_eval.__version__}: scores may differ. Update `tiltyard` and make the images again."
                )
            run = _Run(output, client, plan, results_dir, cancel=cancel, owner=owner)
            image = run.prepare(upload.path)
            evaluation.image_digest = image.digest
            try:
                for suite in plan.suites:
                    run.evaluate(suite, image, evaluation)
                    if evaluation.failure_reason:
                        break
            finally:
                release_image(client, image)
    except SubmissionFault as fault:
        evaluation.fail(fault.reason.value, fault.message)
    except InfraFault as fault:
        raise CliError(f"{fault.message} This is not your submission's fault.", ExitCode.PLATFORM) from None
    except Cancelled:
        raise CliError("Interrupted; the containers are gone.", ExitCode.INTERRUPTED) from None
    finally:
        client.close()
    return evaluation


class _Run:
    """One image under evaluation: where its containers run, what they may use, and where its results go."""

    def __init__(
        self,
        output: Output,
        client: docker.DockerClient,
        plan: Plan,
        results_dir: Path,
        *,
        cancel: threading.Event,
        owner: str,
    ) -> None:
        self._output = output
        self._client = client
        self._plan = plan
        self._results_dir = results_dir
        self._cancel = cancel
        self._owner = owner
        self._labels = {leftovers.LABEL: owner}

    def prepare(self, archive: Path) -> PreparedImage:
        """Build or load the image; its log is kept in build.log."""
        self._output.note("Building or loading the image …")
        with (self._results_dir / "build.log").open("w", encoding="utf-8") as log:
            return prepare_image(
                self._client,
                archive,
                allowed_bases=self._plan.base_images,
                registries=self._registries(archive),
                limits=self._plan.limits,
                on_log=lambda line: _write_line(log, line),
                cancel=self._cancel,
                owner=self._owner,
                gauge_image=self._plan.evaluator_image,
            )

    def _registries(self, archive: Path) -> Collection[str]:
        """Those of the competition; raises CliError for a named image where they are not known here."""
        if not self._plan.registries and (named := named_image(archive)) is not None:
            raise CliError(
                f"{FILE_NAME} names an image, and nothing here says from which registries the competition takes them. "
                f"Fetch it yourself and evaluate it: docker pull {named.reference}, then tiltyard evaluate "
                f"{named.reference} with the same options."
            )
        return self._plan.registries

    def evaluate(self, suite: PlannedSuite, image: PreparedImage, evaluation: Evaluation) -> None:
        """Ask one suite's questions and add what came of it to `evaluation`."""
        self._output.note(f"Asking {suite.title} …")
        directory = self._results_dir / suite.name
        directory.mkdir()
        with (self._results_dir / f"{suite.name}.server.log").open("w", encoding="utf-8") as log:
            outcome = evaluate_suite(
                self._client,
                image=image,
                suite_dir=suite.directory,
                results_dir=directory,
                limits=self._plan.limits,
                adapter=image.manifest.adapter,
                seed=self._plan.seed,
                evaluator_image=self._plan.evaluator_image,
                on_progress=_ProgressLines(self._output),
                on_server_log=lambda line: _write_line(log, line),
                cancel=self._cancel,
                labels=self._labels,
            )
        if outcome.reason is not None:
            evaluation.fail(outcome.reason.value, outcome.message)
        elif (report := SuiteReport.read(suite.title, directory)) is not None:
            evaluation.suites.append(report)


class _ProgressLines:
    """Progress on standard error: each stage, and each tenth of the questions."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        is_asking = stage == "asking" and total > 0
        tenth = f"{stage} {10 * done // total}" if is_asking else stage
        if tenth != self._last:
            self._last = tenth
            self._output.note(f"  {done} of {total} questions" if is_asking else f"  {stage}")


@contextmanager
def _cancel_on_interrupt(output: Output) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that the containers are removed; the second one interrupts at once."""
    cancel = threading.Event()

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        output.note("Stopping the containers … (again to leave at once)")
        cancel.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield cancel
    finally:
        signal.signal(signal.SIGINT, before)


def _require_image(client: docker.DockerClient, reference: str) -> None:
    try:
        client.images.get(reference)
    except docker.errors.ImageNotFound:
        raise CliError(
            f"The evaluator's image {reference} is not on this machine. Make it in a clone of Tiltyard with "
            "`make images`, or name another in TILTYARD_EVALUATOR_IMAGE.",
            ExitCode.PLATFORM,
        ) from None
    except docker.errors.APIError as error:
        raise CliError(f"The Docker engine refused: {error}", ExitCode.PLATFORM) from None


def _write_line(log: TextIO, line: str) -> None:
    log.write(line.rstrip("\n") + "\n")
