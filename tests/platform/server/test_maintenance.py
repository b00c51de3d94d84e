"""The queue heals: lost messages are sent again, runs of dead workers are taken back."""

from datetime import datetime, timedelta

import pytest
import redis
from django.utils import timezone
from web_rows import Site, make_run

from tiltyard.submissions.models import Run
from tiltyard.submissions.quota import quota_for
from tiltyard.submissions.states import FailureReason, RunState
from tiltyard.worker.maintenance import publish_unpublished, reap
from tiltyard.worker.publishing import publish


def claimed(site: Site, name: str, now: datetime, times: int = 1) -> Run:
    run = make_run(site, name)
    for attempt in range(1, times + 1):
        taken = Run.claim(run.pk, f"worker-{attempt}", now)
        assert taken is not None
        if attempt < times:
            assert taken.transition(RunState.QUEUED, "Again.", now=now, faults=attempt)
    return taken


@pytest.mark.redis
def test_a_published_run_is_on_its_tracks_queue(site: Site, broker: redis.Redis) -> None:
    run = make_run(site, "one")
    assert publish(run)
    assert broker.llen("cpu") == 1
    run.refresh_from_db()
    assert run.published_at is not None


@pytest.mark.redis
def test_only_what_was_not_sent_lately_is_sent(site: Site, broker: redis.Redis, now: datetime) -> None:
    never, lately, long_ago, cancelled = (make_run(site, name) for name in ("never", "lately", "long-ago", "cancelled"))
    Run.objects.filter(pk=lately.pk).update(published_at=now - timedelta(seconds=30))
    Run.objects.filter(pk=long_ago.pk).update(published_at=now - timedelta(seconds=600))
    cancelled.request_cancel(now)
    assert publish_unpublished(now) == 2
    assert broker.llen("cpu") == 2
    never.refresh_from_db()
    assert never.published_at is not None


@pytest.mark.redis
def test_where_no_worker_comes_a_run_keeps_its_one_message(site: Site, broker: redis.Redis) -> None:
    for name in ("one", "two", "three"):
        publish(make_run(site, name))
    for hour in range(1, 5):
        assert publish_unpublished(timezone.now() + timedelta(hours=hour)) == 0
    assert broker.llen("cpu") == 3
    broker.lpop("cpu")  # taken by a worker that died at once
    assert publish_unpublished(timezone.now() + timedelta(hours=5)) == 3


@pytest.mark.redis
def test_a_wiped_redis_loses_nothing(site: Site, broker: redis.Redis, now: datetime) -> None:
    publish(make_run(site, "one"))
    broker.flushdb()
    assert broker.llen("cpu") == 0
    run = Run.objects.get()
    assert run.published_at is not None
    assert publish_unpublished(run.published_at + timedelta(seconds=121)) == 1
    assert broker.llen("cpu") == 1


def test_without_a_broker_nothing_is_marked_as_sent(site: Site, now: datetime) -> None:
    make_run(site, "one")
    make_run(site, "two")
    assert publish_unpublished(now) == 0
    assert not Run.objects.filter(published_at__isnull=False).exists()


def test_a_dead_workers_run_is_queued_again(site: Site, now: datetime) -> None:
    run = claimed(site, "one", now)
    assert reap(now + timedelta(seconds=30)) == 0
    assert reap(now + timedelta(seconds=61)) == 1
    fresh = Run.objects.get(pk=run.pk)
    assert (fresh.state, fresh.attempt, fresh.published_at) == (RunState.QUEUED, 1, None)
    assert not run.renew_lease(now)


def test_after_the_last_attempt_it_is_our_failure(site: Site, now: datetime) -> None:
    run = claimed(site, "one", now, times=3)
    assert reap(now + timedelta(seconds=61)) == 1
    run.refresh_from_db()
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.INFRA_ERROR)
    assert "does not count against your quota" in run.failure_message
    assert quota_for(site.owner, site.competition, now).total_used == 0


def test_a_cancelled_run_of_a_dead_worker_stays_cancelled(site: Site, now: datetime) -> None:
    run = claimed(site, "one", now)
    Run.objects.get(pk=run.pk).request_cancel(now)
    reap(now + timedelta(seconds=61))
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED


def test_a_cancellation_in_the_moment_of_requeueing_is_not_lost(
    site: Site, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = claimed(site, "one", now)
    ask = Run.is_cancel_requested

    def ask_just_before_someone_cancels(self: Run) -> bool:
        answer = ask(self)
        Run.objects.get(pk=self.pk).request_cancel(now)
        return answer

    monkeypatch.setattr(Run, "is_cancel_requested", ask_just_before_someone_cancels)
    reap(now + timedelta(seconds=61))
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED


def test_a_start_that_our_fault_undid_is_not_charged(site: Site, now: datetime) -> None:
    run = claimed(site, "one", now)
    reap(now + timedelta(seconds=61))
    assert Run.objects.get(pk=run.pk).request_cancel(now)
    assert quota_for(site.owner, site.competition, now).total_used == 0


def test_nothing_stays_queued_for_ever(site: Site, now: datetime) -> None:
    run = make_run(site, "one")
    assert reap(now + timedelta(days=8)) == 1
    run.refresh_from_db()
    assert (run.state, run.failure_reason) == (RunState.FAILED, FailureReason.INFRA_ERROR)
