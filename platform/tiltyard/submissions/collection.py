"""Collecting artefacts that nothing refers to: their submission was deleted, or was never made after all.

A row comes before its file and goes before it, and what was handed in lately is left alone. So whoever hands the same
file in again meanwhile either finds it, or waits for the end of its removal and stores it anew.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final, ParamSpec

from django.conf import settings
from django.db import DatabaseError, transaction

from tiltyard.submissions.models import Artefact
from tiltyard.submissions.ownership import claim_store
from tiltyard.submissions.stores import Store, StoreError, store

logger = logging.getLogger(__name__)

P = ParamSpec("P")
_BATCH: Final = 500  # names in one question; SQLite takes 999 at least


def collect_artefacts(now: datetime) -> int:
    """Remove rows and files that nothing has referred to for ARTEFACT_GRACE_S; how many files.

    One that cannot be removed now is left for the next time, and holds no other up. In another site's store nothing is.
    """
    before = now - timedelta(seconds=settings.ARTEFACT_GRACE_S)
    keeper = store()
    try:
        claim_store()
    except StoreError as error:
        logger.error("artefacts are not collected: %s", error)
        return 0
    unused = Artefact.objects.filter(submissions=None, needed_at__lt=before).values_list("pk", flat=True)
    removed = sum(_tried(_collect, keeper, pk, before) for pk in list(unused))
    removed += sum(_tried(_collect_unnamed, keeper, sha256) for sha256 in _unnamed(keeper, before))
    _tried(keeper.sweep, before)
    if removed:
        logger.info("removed %d artefacts that nothing referred to", removed)
    return removed


def _tried(act: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
    """What it gives, or 0 with a line in the log."""
    try:
        return act(*args, **kwargs)
    except (StoreError, DatabaseError) as error:
        logger.error("an artefact cannot be collected: %s", error)
        return 0


def _unnamed(keeper: Store, before: datetime) -> Iterator[str]:
    """Files from before then that no row names, as far as the store can list them."""
    batch: list[str] = []
    try:
        for sha256, since in keeper.stored():
            if since < before:
                batch.append(sha256)
            if len(batch) == _BATCH:
                yield from _without_row(batch)
                batch = []
    except StoreError as error:
        logger.error("the artefacts cannot be listed: %s", error)
    yield from _without_row(batch)


def _without_row(hashes: list[str]) -> list[str]:
    named = set(Artefact.objects.filter(sha256__in=hashes).values_list("sha256", flat=True))
    return [sha256 for sha256 in hashes if sha256 not in named]


def _collect(keeper: Store, pk: int, before: datetime) -> bool:
    """Remove a row with its file, if that is still right: a submission may have come in between."""
    with transaction.atomic():
        unused = Artefact.objects.select_for_update(of=("self",)).filter(pk=pk, needed_at__lt=before)
        artefact = unused.first()
        if artefact is None or artefact.submissions.exists():
            return False
        artefact.delete()
        # Inside: who hands the file in now waits for this transaction, and then stores it anew.
        keeper.remove(artefact.sha256)
    return True


def _collect_unnamed(keeper: Store, sha256: str) -> bool:
    """Remove a file without a row, which a kill between the two has left. A row keeps others out meanwhile."""
    with transaction.atomic():
        fields = {"kind": Artefact.Kind.DOCKER_CONTEXT, "size_bytes": 0}
        artefact, is_new = Artefact.objects.get_or_create(sha256=sha256, defaults=fields)
        if not is_new:
            return False
        keeper.remove(sha256)
        artefact.delete()
    return True
