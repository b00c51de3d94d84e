"""What counts against a quota, and what is said when it is used up."""

from datetime import datetime, timedelta

from web_rows import Site, make_run

from tiltyard.submissions.models import Submission
from tiltyard.submissions.quota import quota_for
from tiltyard.submissions.states import FailureReason, RunState


def test_a_newcomer_may_submit(site: Site, now: datetime) -> None:
    quota = quota_for(site.owner, site.competition, now)
    assert quota.refusal() is None
    assert (quota.daily_used, quota.daily_limit, quota.total_limit, quota.concurrent_limit) == (0, 5, 40, 2)


def test_only_what_was_the_participants_counts(site: Site, now: datetime) -> None:
    make_run(site, "scored", state=RunState.SCORED)
    crashed = make_run(site, "crashed", state=RunState.FAILED)
    ours = make_run(site, "ours", state=RunState.FAILED)
    never_started = make_run(site, "never-started")
    never_started.request_cancel(now)
    for run, reason in ((crashed, FailureReason.CRASHED), (ours, FailureReason.INFRA_ERROR)):
        run.failure_reason = reason
        run.save()
    make_run(site, "baseline", is_baseline=True, state=RunState.SCORED)
    make_run(site, "theirs", owner=site.stranger, state=RunState.SCORED)
    quota = quota_for(site.owner, site.competition, now)
    assert (quota.daily_used, quota.total_used, quota.running) == (2, 2, 0)


def test_a_second_run_of_a_submission_costs_nothing(site: Site, now: datetime) -> None:
    run = make_run(site, "scored", state=RunState.SCORED)
    run.pk = None
    run._state.adding = True
    run.save()
    assert quota_for(site.owner, site.competition, now).total_used == 1


def test_the_day_ends_at_midnight_utc(site: Site, now: datetime) -> None:
    for index in range(5):
        make_run(site, f"run-{index}", state=RunState.SCORED)
    refusal = quota_for(site.owner, site.competition, now).refusal()
    assert refusal == "You have used today's 5 submissions. The count starts again at 00:00 UTC."
    assert quota_for(site.owner, site.competition, now + timedelta(days=1)).refusal() is None


def test_two_at_a_time(site: Site, now: datetime) -> None:
    for name in ("one", "two"):
        make_run(site, name, state=RunState.EVALUATING)
    assert quota_for(site.owner, site.competition, now).refusal() == (
        "2 of your runs are still queued or running, and 2 may be at once. Wait for one to end, or cancel one."
    )


def test_the_whole_phase(site: Site, now: datetime) -> None:
    site.phase.total_quota, site.phase.daily_quota = 1, 0
    site.phase.save()
    make_run(site, "one", state=RunState.SCORED)
    assert quota_for(site.owner, site.competition, now).refusal() == (
        "You have used all 1 submissions of the phase “Main phase”."
    )


def test_no_phase_is_open(site: Site, now: datetime) -> None:
    assert quota_for(site.owner, site.competition, now + timedelta(days=365)).refusal() == (
        "The competition takes no submissions now: no phase is open. See its dates."
    )


def test_zero_means_no_limit(site: Site, now: datetime) -> None:
    site.phase.daily_quota = site.phase.total_quota = site.phase.concurrent_quota = 0
    site.phase.save()
    for index in range(9):
        make_run(site, f"run-{index}")
    assert Submission.objects.count() == 9
    assert quota_for(site.owner, site.competition, now).refusal() is None
