"""What a worker that is gone has left: containers, found by their labels, and results, found by their folder's name.

Whichever worker looks next removes them. Results hold hidden questions with their answers, so they must not stay.
"""

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from django.conf import settings
from django.utils import timezone

from tiltyard.submissions.models import Run
from tiltyard.submissions.states import ACTIVE
from tiltyard_sandbox.pair import sweep

logger = logging.getLogger(__name__)

# The instance keeps apart two sites on one engine: what the other one runs is not in this database.
INSTANCE, RUN, ATTEMPT = "tiltyard.instance", "tiltyard.run", "tiltyard.attempt"
_RESULTS_DIR = re.compile(r"results-(?P<run>[0-9a-f-]{36})-(?P<attempt>[0-9]+)-[^-]+")


def labels_of(run: Run) -> dict[str, str]:
    """The labels of everything that this attempt starts."""
    return {INSTANCE: settings.INSTANCE, RUN: str(run.pk), ATTEMPT: str(run.attempt)}


@contextmanager
def results_dir(run: Run) -> Iterator[Path]:
    """An empty directory for one evaluation of this attempt, removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix=f"results-{run.pk}-{run.attempt}-", dir=settings.WORK_DIR))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def sweep_strays(client: docker.DockerClient) -> int:
    """Remove this site's containers and results that belong to no live attempt; how many containers there were."""
    # First what is there, then who lives: an attempt that begins in between must not lose what it has just made.
    containers = client.containers.list(
        all=True, filters={"label": f"{INSTANCE}={settings.INSTANCE}"}, ignore_removed=True
    )
    directories = _results_dirs()
    live = _live_attempts()
    found = {(container.labels.get(RUN, ""), container.labels.get(ATTEMPT, "")) for container in containers}
    removed = sum(
        sweep(client, {INSTANCE: settings.INSTANCE, RUN: run, ATTEMPT: attempt}) for run, attempt in found - live
    )
    if removed:
        logger.warning("removed %d stray containers", removed)
    for directory, attempt in directories.items():
        if attempt not in live:
            logger.warning("removed the results of run %s attempt %s, whose worker is gone", *attempt)
            shutil.rmtree(directory, ignore_errors=True)
    return removed


def _results_dirs() -> dict[Path, tuple[str, str]]:
    matches = {path: _RESULTS_DIR.fullmatch(path.name) for path in Path(settings.WORK_DIR).glob("results-*")}
    return {path: (match["run"], match["attempt"]) for path, match in matches.items() if match}


def _live_attempts() -> set[tuple[str, str]]:
    live = Run.objects.filter(state__in=ACTIVE, lease_expires_at__gte=timezone.now())
    return {(str(pk), str(attempt)) for pk, attempt in live.values_list("pk", "attempt")}
