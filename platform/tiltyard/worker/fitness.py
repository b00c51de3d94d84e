"""Whether this worker may take a run at all: asked before each claim, so that no run suffers from an unfit worker."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import docker
from django.conf import settings

from tiltyard.evaluation import own_evaluator_image
from tiltyard.submissions.stores import store
from tiltyard.worker.engine_safety import require_safe_engine
from tiltyard_sandbox.engine import ENGINE_ERRORS, connect
from tiltyard_sandbox.limits import Limits
from tiltyard_sandbox.verdicts import InfraFault


class Unfit(Exception):  # noqa: N818 - a state, not a bug
    """Something is wrong with this worker or its machine; the message is for the operator and says what to do."""


@dataclass(frozen=True)
class Machine:
    """What a fit worker works with."""

    client: docker.DockerClient
    evaluator_image: str  # an id; of this worker's own version


@contextmanager
def fit_machine() -> Iterator[Machine]:
    """The engine, which submissions may run on, and the evaluator on it; raises Unfit where something is missing.

    So does a store of artefacts that is away: every run that is taken meanwhile would fail on it.
    """
    try:
        Limits(cpuset=settings.WORKER_CPUS or None)
    except ValueError as error:
        raise Unfit(f"TILTYARD_WORKER_CPUS: {error}") from error
    try:
        Limits(runtime=settings.WORKER_RUNTIME or None)
    except ValueError as error:
        raise Unfit(f"TILTYARD_WORKER_RUNTIME: {error}") from error
    if not store().answers():
        raise Unfit(f"The store of artefacts, {settings.ARTEFACT_STORE}, does not answer.")
    with ExitStack() as opened:
        try:
            client = connect()
            opened.callback(client.close)
            machine = Machine(client, own_evaluator_image(client, settings.EVALUATOR_IMAGE))
            require_safe_engine(client, machine.evaluator_image)
        except InfraFault as fault:
            raise Unfit(fault.message) from fault
        except ENGINE_ERRORS as error:
            raise Unfit(f"The Docker engine failed: {error}") from error
        yield machine
