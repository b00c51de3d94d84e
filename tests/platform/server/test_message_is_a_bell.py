"""A run's message only says that something waits: which run is taken, and by whom, the database decides."""

from contextlib import nullcontext
from datetime import datetime

import pytest
import redis
from web_rows import Site, make_run

from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState
from tiltyard.worker import draining, execution
from tiltyard.worker.execution import execute
from tiltyard.worker.fitness import Machine, Unfit
from tiltyard.worker.maintenance import publish_unpublished
from tiltyard.worker.publishing import messages_waiting, publish, ring_for_the_next


@pytest.fixture
def unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Machine:
        raise Unfit("The Docker engine cannot be reached.")

    monkeypatch.setattr(execution, "fit_machine", refuse)
    monkeypatch.setattr(execution, "UNFIT_PAUSE_S", 0.0)


@pytest.mark.redis
def test_an_unfit_worker_does_not_eat_the_message(
    site: Site, broker: redis.Redis, unfit: None, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(site, "one")
    execute(run.pk, "worker")
    run.refresh_from_db()
    assert (run.state, run.attempt, run.faults) == (RunState.QUEUED, 0, 0)
    assert messages_waiting("cpu") == 1
    assert "this worker takes no run: The Docker engine cannot be reached." in caplog.text


@pytest.mark.redis
def test_the_bell_is_rung_where_runs_wait_without_a_message(site: Site, broker: redis.Redis, now: datetime) -> None:
    ring_for_the_next("cpu")
    assert messages_waiting("cpu") == 0
    make_run(site, "one")
    ring_for_the_next("cpu")
    ring_for_the_next("cpu")
    assert messages_waiting("cpu") == 1


@pytest.mark.redis
def test_a_worker_that_is_stopping_takes_nothing(
    site: Site, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "is_requested", lambda: True)
    run = make_run(site, "one")
    monkeypatch.setattr(execution, "fit_machine", nullcontext)
    execute(run.pk, "worker")
    run.refresh_from_db()
    assert (run.state, run.attempt) == (RunState.QUEUED, 0)
    assert messages_waiting("cpu") == 1


def test_a_run_that_is_gone(db: None) -> None:
    execute("00000000-0000-0000-0000-000000000000", "worker")


@pytest.mark.redis
def test_a_late_mark_of_an_old_message_hides_nothing(site: Site, broker: redis.Redis, now: datetime) -> None:
    """A publisher that is slow to write that it has sent must not mark the next attempt as sent."""
    slow = make_run(site, "one")
    taken = Run.claim(slow.pk, "worker", now)
    assert taken is not None
    assert taken.transition(RunState.QUEUED, "Again.", now=now)
    assert publish(slow)
    assert Run.objects.get(pk=slow.pk).published_at is None
    assert publish_unpublished(now) == 1


@pytest.mark.redis
def test_queued_runs_follow_their_track_to_another_queue(site: Site, broker: redis.Redis, now: datetime) -> None:
    run = make_run(site, "one")
    publish(run)
    site.track.queue = "big"
    site.track.save()
    assert publish_unpublished(now) == 1
    assert Run.objects.get(pk=run.pk).queue == "big"
    assert messages_waiting("big") == 1
