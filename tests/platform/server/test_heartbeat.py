"""The thread beside a run: it renews the lease, carries progress, and hears of cancellations."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.db import InterfaceError
from django.utils import timezone
from pytest_django.fixtures import Settings
from web_rows import Site, make_run, make_site

from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState
from tiltyard.worker import draining
from tiltyard.worker import heartbeat as heartbeat_module
from tiltyard.worker.heartbeat import Heartbeat
from tiltyard.worker.logs import CappedLog

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "BEAT_S", 0.02)


@pytest.fixture
def site(transactional_db: None) -> Site:
    return make_site(timezone.now())


@pytest.fixture
def run(site: Site) -> Run:
    claimed = Run.claim(make_run(site, "one").pk, "worker", timezone.now())
    assert claimed is not None
    return claimed


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_the_lease_is_renewed(run: Run) -> None:
    long_ago = timezone.now() - timedelta(hours=1)
    Run.objects.filter(pk=run.pk).update(lease_expires_at=long_ago)
    with Heartbeat(run) as heartbeat:
        until(lambda: not Run.objects.expired(timezone.now()).exists())
        assert not heartbeat.cancel.is_set()


def test_progress_and_logs_are_carried(run: Run) -> None:
    log = CappedLog()
    with Heartbeat(run) as heartbeat:
        heartbeat.watch("build_log", log)
        log.add("Step 1")
        heartbeat.report(items_done=3, items_total=9)
        until(lambda: Run.objects.filter(pk=run.pk, items_done=3, items_total=9, build_log="Step 1").exists())


def test_a_cancellation_is_heard(run: Run) -> None:
    with Heartbeat(run) as heartbeat:
        Run.objects.get(pk=run.pk).request_cancel(timezone.now())
        assert heartbeat.cancel.wait(10)
        assert heartbeat.was_requested


def test_a_run_that_was_taken_away_is_given_up(run: Run) -> None:
    with Heartbeat(run) as heartbeat:
        Run.objects.get(pk=run.pk).transition(RunState.QUEUED, "Taken back.")
        assert heartbeat.cancel.wait(10)
        assert not heartbeat.was_requested
        heartbeat.report(items_done=5)
        heartbeat.flush()
    assert Run.objects.get(pk=run.pk).items_done == 0


def test_an_attempt_over_its_deadline_is_stopped(run: Run, settings: Settings) -> None:
    settings.RUN_DEADLINE_S = 0
    with Heartbeat(run) as heartbeat:
        assert heartbeat.cancel.wait(10)
        assert not heartbeat.was_requested


def test_a_worker_that_is_stopping_gives_its_run_a_while(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "is_requested", lambda: True)
    settings.WORKER_DRAIN_S = 3600
    with Heartbeat(run) as heartbeat:
        heartbeat.report(items_done=3)
        until(lambda: Run.objects.filter(pk=run.pk, items_done=3).exists())
        assert not heartbeat.cancel.is_set()
    settings.WORKER_DRAIN_S = 0
    with Heartbeat(run) as heartbeat:
        assert heartbeat.cancel.wait(10)
        assert (heartbeat.was_drained, heartbeat.was_requested) == (True, False)


def test_a_lost_connection_is_survived(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    renew, answers = Run.renew_lease, [InterfaceError("connection already closed")]

    def lose_the_connection_once(self: Run, now: datetime) -> bool:
        if answers:
            raise answers.pop()
        return renew(self, now)

    monkeypatch.setattr(Run, "renew_lease", lose_the_connection_once)
    Run.objects.filter(pk=run.pk).update(lease_expires_at=timezone.now() - timedelta(hours=1))
    with Heartbeat(run) as heartbeat:
        until(lambda: not Run.objects.expired(timezone.now()).exists())
        assert not heartbeat.cancel.is_set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_heartbeat_that_breaks_stops_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(_self: Run, _now: datetime) -> bool:
        raise MemoryError

    monkeypatch.setattr(Run, "renew_lease", break_down)
    with Heartbeat(run) as heartbeat:
        assert heartbeat.cancel.wait(10)
        assert not heartbeat.was_requested
