"""Races for real, by threads with a connection each. SQLite has one writer at a time; PostgreSQL lets them collide."""

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pytest
from django.db import connection
from uploads_for_tests import context_archive
from web_rows import Site, make_run, make_site

from tiltyard.accounts.models import User
from tiltyard.submissions.intake import QuotaExceeded, accept_upload
from tiltyard.submissions.models import Run, RunEvent, Submission

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="an SQLite database in memory has one connection"),
]

THREADS = 8
T = TypeVar("T")


@pytest.fixture
def site(transactional_db: None, now: datetime) -> Site:
    return make_site(now)


def at_once(work: Callable[[int], T]) -> list[T]:
    """What `work` gives on THREADS threads that start together."""
    barrier = threading.Barrier(THREADS)
    results: list[T] = []

    def body(number: int) -> None:
        try:
            barrier.wait(timeout=30)
            results.append(work(number))
        finally:
            connection.close()

    threads = [threading.Thread(target=body, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results) == THREADS
    return results


def test_of_many_claims_one_wins(site: Site, now: datetime) -> None:
    run = make_run(site, "one")
    claims = at_once(lambda number: Run.claim(run.pk, f"worker-{number}", now))
    (winner,) = [claim for claim in claims if claim is not None]
    run.refresh_from_db()
    assert (run.worker, run.attempt) == (winner.worker, 1)
    assert RunEvent.objects.filter(run=run, state="preparing").count() == 1


def test_workers_that_claim_at_once_get_different_runs(site: Site, now: datetime) -> None:
    for number in range(THREADS):
        owner = User.objects.create_user(f"p{number}", f"p{number}@example.org", "correct horse battery")
        make_run(site, f"run-{number}", owner=owner)
    claims = [run for run in at_once(lambda number: Run.claim_next("cpu", f"worker-{number}", now)) if run is not None]
    assert len({run.pk for run in claims}) == len(claims) == THREADS


def test_claims_at_once_do_not_slip_past_a_participants_limit(site: Site, now: datetime) -> None:
    for number in range(THREADS):
        make_run(site, f"run-{number}")
    claims = at_once(lambda number: Run.claim_next("cpu", f"worker-{number}", now))
    assert sum(run is not None for run in claims) == 2


def test_a_claim_and_a_cancellation(site: Site, now: datetime) -> None:
    run = make_run(site, "one")

    def work(number: int) -> bool:
        if number % 2:
            return Run.claim(run.pk, f"worker-{number}", now) is not None
        return Run.objects.get(pk=run.pk).request_cancel(now)

    at_once(work)
    run.refresh_from_db()
    assert run.cancel_requested_at == now
    assert (run.state, run.attempt) in {("cancelled", 0), ("preparing", 1)}


def test_uploads_at_once_do_not_slip_past_the_quota(site: Site, now: datetime, tmp_path: Path) -> None:
    def work(number: int) -> bool:
        path = context_archive(tmp_path / f"{number}.tar.gz", files={"n": str(number)})
        try:
            accept_upload(
                owner=site.owner,
                competition=site.competition,
                track=site.track,
                path=path,
                filename=path.name,
                now=now,
            )
        except QuotaExceeded:
            return False
        return True

    assert sorted(at_once(work)) == [False] * (THREADS - 2) + [True] * 2
    assert Submission.objects.count() == 2
