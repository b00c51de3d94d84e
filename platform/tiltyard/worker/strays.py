"""Containers whose worker is gone: found by their labels, removed by whichever worker of this engine looks next."""

import logging

import docker
from django.conf import settings
from django.utils import timezone

from tiltyard.submissions.models import Run
from tiltyard.submissions.states import ACTIVE
from tiltyard_sandbox.pair import sweep

logger = logging.getLogger(__name__)

# The instance keeps apart two sites on one engine: what the other one runs is not in this database.
INSTANCE, RUN, ATTEMPT = "tiltyard.instance", "tiltyard.run", "tiltyard.attempt"


def labels_of(run: Run) -> dict[str, str]:
    """The labels of everything that this attempt starts."""
    return {INSTANCE: settings.INSTANCE, RUN: str(run.pk), ATTEMPT: str(run.attempt)}


def sweep_strays(client: docker.DockerClient) -> int:
    """Remove this site's containers that belong to no live attempt; how many there were."""
    now = timezone.now()
    live = {
        (str(pk), str(attempt))
        for pk, attempt in Run.objects.filter(state__in=ACTIVE, lease_expires_at__gte=now).values_list("pk", "attempt")
    }
    containers = client.containers.list(all=True, filters={"label": f"{INSTANCE}={settings.INSTANCE}"})
    found = {(container.labels.get(RUN, ""), container.labels.get(ATTEMPT, "")) for container in containers}
    removed = sum(
        sweep(client, {INSTANCE: settings.INSTANCE, RUN: run, ATTEMPT: attempt}) for run, attempt in found - live
    )
    if removed:
        logger.warning("removed %d stray containers", removed)
    return removed
