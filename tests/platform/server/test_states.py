"""The table of states, walked: every pair of states, every deadline, and what is written with each change."""

from datetime import datetime, timedelta
from itertools import product

import pytest
from django.db import IntegrityError, transaction
from pytest_django.fixtures import Settings
from web_rows import Site, make_run

from tiltyard.submissions.models import Run, RunEvent
from tiltyard.submissions.models.events import HistoryIsFixed
from tiltyard.submissions.quota import quota_for
from tiltyard.submissions.states import ACTIVE, FINAL, STATES, EventKind, RunState, kind_of
from tiltyard.worker.maintenance import reap

EDGES = {
    (RunState.QUEUED, RunState.PREPARING),
    (RunState.PREPARING, RunState.BUILDING),
    (RunState.BUILDING, RunState.EVALUATING),
    (RunState.EVALUATING, RunState.SCORING),
    (RunState.SCORING, RunState.SCORED),
    *product([RunState.QUEUED, *ACTIVE], [RunState.FAILED, RunState.CANCELLED]),
    *product(ACTIVE, [RunState.QUEUED]),
}


def run_in(site: Site, state: RunState, now: datetime) -> Run:
    """A run that came to its state by the transitions themselves, not by hand."""
    run = make_run(site, f"run-{state}")
    if state == RunState.QUEUED:
        return run
    claimed = Run.claim(run.pk, "worker", now)
    assert claimed is not None
    path = [RunState.BUILDING, RunState.EVALUATING, RunState.SCORING, RunState.SCORED]
    if state in {RunState.FAILED, RunState.CANCELLED}:
        path = [state]
    while claimed.state != state:
        assert claimed.transition(path.pop(0), "On.", now=now)
    return claimed


@pytest.mark.parametrize(("state", "to"), list(product(RunState, RunState)))
def test_every_pair_of_states(site: Site, now: datetime, state: RunState, to: RunState) -> None:
    run = run_in(site, state, now)
    events = run.events.count()
    if (state, to) not in EDGES:
        with pytest.raises(ValueError, match=f"cannot go from {state} to {to}"):
            run.transition(to, "No.")
        assert (Run.objects.get(pk=run.pk).state, run.events.count()) == (state, events)
        return
    later = now + timedelta(seconds=5)
    assert run.transition(to, "Yes.", now=later)
    row, event = Run.objects.get(pk=run.pk), RunEvent.objects.latest("pk")
    assert row.state == run.state == to
    assert (event.state, event.at, event.message, event.kind) == (to, later, "Yes.", kind_of(to, run.attempt))
    assert (row.finished_at == later) == (to in FINAL)
    assert (row.deadline_at is None) == (to in FINAL)
    assert row.deadline_at is None or row.deadline_at > later


def test_the_table_has_a_deadline_for_every_state_that_is_not_final(site: Site, now: datetime) -> None:
    assert set(STATES) == set(RunState)
    assert {state for state, rule in STATES.items() if not rule.to} == FINAL
    assert {state for state, rule in STATES.items() if rule.deadline_s is None} == FINAL


@pytest.mark.parametrize("state", sorted({RunState.QUEUED, *ACTIVE}))
def test_no_state_lasts_for_ever(site: Site, now: datetime, state: RunState) -> None:
    run = run_in(site, state, now)
    Run.objects.filter(pk=run.pk).exclude(state="queued").update(lease_expires_at=now + timedelta(days=365))
    assert run.deadline_at is not None
    assert reap(run.deadline_at) == 0
    assert reap(run.deadline_at + timedelta(seconds=1)) == 1
    run.refresh_from_db()
    assert run.state == (RunState.FAILED if state == RunState.QUEUED else RunState.QUEUED)
    assert quota_for(site.owner, site.competition, now).total_used == (0 if run.state == RunState.FAILED else 1)


@pytest.mark.parametrize("state", sorted({RunState.QUEUED, *ACTIVE}))
def test_the_database_knows_that_there_is_a_deadline(site: Site, now: datetime, state: RunState) -> None:
    run = run_in(site, state, now)
    with pytest.raises(IntegrityError), transaction.atomic():
        Run.objects.filter(pk=run.pk).update(deadline_at=None)


def test_a_stage_is_given_its_limits_and_some_slack(site: Site, now: datetime, settings: Settings) -> None:
    settings.RUN_STAGE_SLACK_S = 100
    site.track.limits = {"build_s": 60, "start_s": 10, "evaluate_s": 200}
    site.track.save()
    expected = {
        RunState.PREPARING: 100,
        RunState.BUILDING: 160,
        RunState.EVALUATING: 2 * 210 + 100,  # two suites
        RunState.SCORING: 100,
    }
    for state, seconds in expected.items():
        assert run_in(site, state, now).deadline_at == now + timedelta(seconds=seconds)


def test_a_lease_is_not_renewed_beyond_the_deadline(site: Site, now: datetime) -> None:
    run = run_in(site, RunState.EVALUATING, now)
    assert run.deadline_at is not None
    assert run.renew_lease(run.deadline_at)
    assert not run.renew_lease(run.deadline_at + timedelta(seconds=1))


def test_kinds_tell_what_happened(site: Site, now: datetime) -> None:
    run = Run.enqueue(make_run(site, "a").submission, now, "Accepted.")
    claimed = Run.claim(run.pk, "worker", now)
    assert claimed is not None
    assert claimed.transition(RunState.BUILDING, "Builds.", now=now)
    assert claimed.transition(RunState.QUEUED, "Again.", now=now)
    again = Run.claim(run.pk, "worker", now)
    assert again is not None
    Run.objects.get(pk=run.pk).request_cancel(now)
    assert again.transition(RunState.CANCELLED, "Cancelled.", now=now)
    kind = EventKind
    expected = [kind.QUEUED, kind.CLAIMED, kind.STAGE, kind.REQUEUED, kind.CLAIMED, kind.CANCEL_REQUESTED, kind.VERDICT]
    assert [event.kind for event in run.events.all()] == expected
    assert [event.attempt for event in run.events.all()] == [0, 1, 1, 1, 2, 2, 2]


def test_a_second_attempt_keeps_its_place(site: Site, now: datetime) -> None:
    run = run_in(site, RunState.EVALUATING, now)
    queued_at = run.queued_at
    assert run.transition(RunState.QUEUED, "Again.", now=now + timedelta(hours=1))
    assert Run.objects.get(pk=run.pk).queued_at == queued_at


def test_history_is_only_added_to(site: Site, now: datetime) -> None:
    run = run_in(site, RunState.SCORED, now)
    event = run.events.latest("pk")
    event.message = "It was otherwise."
    with pytest.raises(HistoryIsFixed):
        event.save()
    with pytest.raises(HistoryIsFixed):
        event.delete()
    with pytest.raises(HistoryIsFixed):
        RunEvent.objects.update(message="It was otherwise.")
    with pytest.raises(HistoryIsFixed):
        run.events.all().delete()
    assert not run.events.filter(message="It was otherwise.").exists()
    run.delete()  # with its run it may go
    assert not RunEvent.objects.exists()


def test_a_failure_of_ours_is_counted_apart_from_attempts(site: Site, now: datetime) -> None:
    run = run_in(site, RunState.EVALUATING, now)
    assert run.transition(RunState.QUEUED, "The worker was stopped.", now=now)
    row = Run.objects.get(pk=run.pk)
    assert (row.attempt, row.faults, row.failure_reason) == (1, 0, "")
