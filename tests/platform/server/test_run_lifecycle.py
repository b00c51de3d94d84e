"""A run's claims, leases and endings: whoever comes second changes nothing."""

from datetime import datetime, timedelta

import pytest
from web_rows import Site, make_run

from tiltyard.submissions.models import Run, RunEvent
from tiltyard.submissions.states import FailureReason, RunState


def states(run: Run) -> list[str]:
    return list(RunEvent.objects.filter(run=run).values_list("state", flat=True))


def test_claim_takes_a_queued_run(site: Site, now: datetime) -> None:
    claimed = Run.claim(make_run(site, "a").pk, "worker-1", now)
    assert claimed is not None
    assert (claimed.state, claimed.attempt, claimed.worker) == (RunState.PREPARING, 1, "worker-1")
    assert claimed.lease_expires_at is not None
    assert claimed.lease_expires_at > now
    assert states(claimed) == ["queued", "preparing"]


def test_of_two_claims_one_wins(site: Site, now: datetime) -> None:
    run = make_run(site, "a")
    claims = [Run.claim(run.pk, worker, now) for worker in ("worker-1", "worker-2")]
    assert [claim is not None for claim in claims] == [True, False]
    run.refresh_from_db()
    assert (run.worker, run.attempt) == ("worker-1", 1)


def test_a_cancelled_run_cannot_be_claimed(site: Site, now: datetime) -> None:
    run = make_run(site, "a")
    assert run.request_cancel(now)
    assert Run.claim(run.pk, "worker-1", now) is None
    run.refresh_from_db()
    assert (run.state, run.finished_at) == (RunState.CANCELLED, now)


def test_claim_of_a_run_that_does_not_exist(db: None, now: datetime) -> None:
    assert Run.claim("00000000-0000-0000-0000-000000000000", "worker-1", now) is None


def test_a_stale_attempt_writes_nothing(site: Site, now: datetime) -> None:
    stale = Run.claim(make_run(site, "a").pk, "worker-1", now)
    assert stale is not None
    taken_back = Run.objects.get(pk=stale.pk)
    assert taken_back.transition(RunState.QUEUED, "Taken back.", now=now)
    fresh = Run.claim(stale.pk, "worker-2", now)
    assert fresh is not None
    assert fresh.attempt == 2
    before = states(fresh)

    assert not stale.renew_lease(now)
    assert not stale.write(items_done=7)
    assert not stale.transition(RunState.BUILDING, "I am back.")
    assert not stale.transition(RunState.FAILED, "No.", failure_reason=FailureReason.CRASHED)
    assert not stale.is_cancel_requested()

    fresh.refresh_from_db()
    assert (fresh.state, fresh.worker, fresh.items_done, fresh.failure_reason) == (
        RunState.PREPARING,
        "worker-2",
        0,
        "",
    )
    assert states(fresh) == before


def test_a_final_state_stays(site: Site, now: datetime) -> None:
    run = Run.claim(make_run(site, "a").pk, "worker-1", now)
    assert run is not None
    twin = Run.objects.get(pk=run.pk)
    assert run.transition(RunState.CANCELLED, "Cancelled.", now=now)
    assert not twin.transition(RunState.FAILED, "Too late.")
    assert not twin.renew_lease(now)
    assert not twin.request_cancel(now)
    run.refresh_from_db()
    assert (run.state, run.lease_expires_at, run.finished_at) == (RunState.CANCELLED, None, now)


def test_an_unknown_transition_is_a_mistake_of_the_program(site: Site) -> None:
    with pytest.raises(ValueError, match="cannot go from queued to scored"):
        make_run(site, "a").transition(RunState.SCORED, "No.")


def test_cancelling_an_active_run_sets_a_flag_once(site: Site, now: datetime) -> None:
    run = Run.claim(make_run(site, "a").pk, "worker-1", now)
    assert run is not None
    assert Run.objects.get(pk=run.pk).request_cancel(now)
    assert Run.objects.get(pk=run.pk).request_cancel(now + timedelta(seconds=5))
    assert run.is_cancel_requested()
    run.refresh_from_db()
    assert (run.state, run.cancel_requested_at) == (RunState.PREPARING, now)
    assert states(run).count("preparing") == 2  # the claim, and one request


def test_expired_names_only_active_runs_whose_lease_is_over(site: Site, now: datetime, settings: object) -> None:
    runs = [Run.claim(make_run(site, name).pk, "worker", now) for name in ("alive", "dead")]
    alive, dead = (run for run in runs if run is not None)
    later = now + timedelta(seconds=61)
    assert alive.renew_lease(later)
    make_run(site, "queued")
    assert list(Run.objects.expired(later)) == [dead]


def test_messages_are_cut_to_their_column(site: Site, now: datetime) -> None:
    run = Run.claim(make_run(site, "a").pk, "worker-1", now)
    assert run is not None
    assert run.transition(RunState.FAILED, "x" * 1000, failure_reason=FailureReason.CRASHED)
    assert len(RunEvent.objects.filter(run=run).latest("pk").message) == 300
