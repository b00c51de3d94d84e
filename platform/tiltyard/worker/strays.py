"""What a worker that is gone has left: containers and images, found by their labels and tags, and its files.

Whichever worker looks next removes them. Results hold hidden questions with their answers, so they must not stay.
"""

import hashlib
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from django.conf import settings
from django.db import Error as DatabaseFault
from django.utils import timezone

from tiltyard.submissions.models import Run
from tiltyard.submissions.states import ACTIVE
from tiltyard.submissions.stores.scratch import sweep_scratch
from tiltyard_sandbox.engine import ENGINE_ERRORS, connect
from tiltyard_sandbox.fetching import forget_fetched
from tiltyard_sandbox.leftovers import find_leftovers, remove_first_steps, remove_leftovers
from tiltyard_sandbox.pair import sweep
from tiltyard_sandbox.verdicts import InfraFault

logger = logging.getLogger(__name__)

# The instance keeps apart two sites on one engine: what the other one runs is not in this database.
INSTANCE, RUN, ATTEMPT = "tiltyard.instance", "tiltyard.run", "tiltyard.attempt"
_RESULTS, _SCRATCH = "results", "scratch"  # what an evaluator may write into, and what the worker alone does
_DIR_OF_ATTEMPT = re.compile(rf"({_RESULTS}|{_SCRATCH})-(?P<run>[0-9a-f-]{{36}})-(?P<attempt>[0-9]+)-[^-]+")


def labels_of(run: Run) -> dict[str, str]:
    """The labels of everything that this attempt starts."""
    return {INSTANCE: settings.INSTANCE, RUN: str(run.pk), ATTEMPT: str(run.attempt)}


def owner_of(run: Run) -> str:
    """This attempt's name in the engine, as in `tiltyard_sandbox.owners`."""
    return _owner(str(run.pk), str(run.attempt))


def _owner(run: str, attempt: str) -> str:
    return f"{_site()}.{run}.{attempt}"


def _site() -> str:
    """The instance, whatever characters it has, as a part of an owner's name."""
    return hashlib.sha256(settings.INSTANCE.encode()).hexdigest()[:12]


@contextmanager
def results_dir(run: Run) -> Iterator[Path]:
    """An empty directory for one evaluation of this attempt, removed at the end."""
    with _directory_of(run, _RESULTS) as directory:
        yield directory


@contextmanager
def scratch_dir(run: Run) -> Iterator[Path]:
    """An empty directory for what this attempt's worker needs while it prepares the image, removed at the end."""
    with _directory_of(run, _SCRATCH) as directory:
        yield directory


@contextmanager
def _directory_of(run: Run, kind: str) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix=f"{kind}-{run.pk}-{run.attempt}-", dir=settings.WORK_DIR))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def sweep_strays(client: docker.DockerClient) -> int:
    """Remove what belongs to no live attempt of this site; how many containers and images there were."""
    # First what is there, then who lives: an attempt that begins in between must not lose what it has just made.
    containers = client.containers.list(
        all=True, filters={"label": f"{INSTANCE}={settings.INSTANCE}"}, ignore_removed=True
    )
    leftovers = find_leftovers(client, _site())
    directories = _directories()
    live = _live_attempts()
    found = {(container.labels.get(RUN, ""), container.labels.get(ATTEMPT, "")) for container in containers}
    removed = sum(
        sweep(client, {INSTANCE: settings.INSTANCE, RUN: run, ATTEMPT: attempt}) for run, attempt in found - live
    )
    live_owners = {_owner(run, attempt) for run, attempt in live}
    removed += remove_leftovers(client, [one for one in leftovers if one.owners.isdisjoint(live_owners)])
    removed += remove_first_steps(client)
    for directory, attempt in directories.items():
        if attempt not in live:
            if directory.name.startswith(_SCRATCH):
                removed += forget_fetched(client, directory)
            logger.warning("removed the files of run %s attempt %s, whose worker is gone", *attempt)
            shutil.rmtree(directory, ignore_errors=True)
    if removed:
        logger.warning("removed %d stray containers and images", removed)
    if copies := sweep_scratch(Path(settings.WORK_DIR)):
        logger.warning("removed %d copies of artefacts, whose process is gone", copies)
    return removed


def try_to_sweep() -> None:
    """Sweep, where that must not fail anything: with an engine of its own, and no more than a line in the log."""
    try:
        client = connect()
        try:
            sweep_strays(client)
        finally:
            client.close()
    except (InfraFault, DatabaseFault, *ENGINE_ERRORS) as error:
        logger.warning("no sweep of what others left: %s", error)


def _directories() -> dict[Path, tuple[str, str]]:
    """Those of attempts, by whose they are."""
    matches = {path: _DIR_OF_ATTEMPT.fullmatch(path.name) for path in Path(settings.WORK_DIR).iterdir()}
    return {path: (match["run"], match["attempt"]) for path, match in matches.items() if match}


def _live_attempts() -> set[tuple[str, str]]:
    live = Run.objects.filter(state__in=ACTIVE, lease_expires_at__gte=timezone.now())
    return {(str(pk), str(attempt)) for pk, attempt in live.values_list("pk", "attempt")}
