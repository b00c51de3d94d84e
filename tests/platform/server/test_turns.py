"""Whose turn it is: nobody starves behind somebody else's hundred runs."""

from collections import Counter
from datetime import datetime, timedelta

import pytest
from pytest_django.fixtures import Settings
from web_rows import Site, make_run

from tiltyard.accounts.models import User
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState


def queue(site: Site, owner: User, count: int, now: datetime, **fields: object) -> list[Run]:
    """Runs that this participant queues one after the other."""
    made = []
    for number in range(count):
        submission = make_run(site, f"{owner.username}-{number}", owner=owner, state=RunState.CANCELLED).submission
        run = Run.enqueue(submission, now, "Accepted.")
        Run.objects.filter(pk=run.pk).update(**fields)
        made.append(run)
    return made


def serve(now: datetime, count: int, queue: str = "cpu") -> list[str]:
    """Whose runs `count` workers take one after the other, each finished before the next."""
    served = []
    for _ in range(count):
        run = Run.claim_next(queue, "worker", now)
        if run is None:
            break
        served.append(run.submission.owner.username)
        run.transition(RunState.FAILED, "Over.", now=now)
    return served


def test_who_comes_later_does_not_wait_for_a_hundred_runs(site: Site, now: datetime) -> None:
    queue(site, site.owner, 20, now)
    queue(site, site.stranger, 3, now + timedelta(seconds=1))
    served = serve(now, 23)
    assert served[:6] == ["owner", "stranger", "owner", "stranger", "owner", "stranger"]
    assert Counter(served) == {"owner": 20, "stranger": 3}


def test_a_newcomer_stands_behind_what_was_served_not_behind_what_waits(site: Site, now: datetime) -> None:
    queue(site, site.owner, 20, now)
    assert serve(now, 10) == ["owner"] * 10
    queue(site, site.stranger, 4, now)
    served = serve(now, 8)
    assert Counter(served) == {"owner": 4, "stranger": 4}
    assert served[0] == "stranger"


def test_who_was_away_has_saved_nothing_up(site: Site, now: datetime) -> None:
    queue(site, site.stranger, 1, now)
    queue(site, site.owner, 30, now)
    assert serve(now, 31).count("owner") == 30
    queue(site, site.owner, 5, now)
    queue(site, site.stranger, 5, now)
    assert Counter(serve(now, 6)) == {"owner": 3, "stranger": 3}


def test_one_participants_runs_keep_their_order(site: Site, now: datetime) -> None:
    runs = queue(site, site.owner, 4, now)
    order = []
    while (run := Run.claim_next("cpu", "worker", now)) is not None:
        order.append(run.pk)
        run.transition(RunState.FAILED, "Over.", now=now)
    assert order == [run.pk for run in runs]


def test_priority_comes_first(site: Site, now: datetime) -> None:
    queue(site, site.owner, 1, now, priority=Run.Priority.LOW)
    queue(site, site.stranger, 2, now)
    queue(site, site.staff, 1, now, priority=Run.Priority.HIGH)
    assert serve(now, 4) == ["staff", "stranger", "stranger", "owner"]


def test_queues_are_apart(site: Site, now: datetime) -> None:
    queue(site, site.owner, 2, now, queue="gpu")
    assert serve(now, 9, "cpu") == []
    assert serve(now, 9, "gpu") == ["owner", "owner"]


@pytest.mark.parametrize("limit", [1, 3])
def test_a_participant_has_only_so_many_under_way(site: Site, now: datetime, settings: Settings, limit: int) -> None:
    settings.RUNS_PER_USER_MAX = limit
    queue(site, site.owner, 5, now)
    queue(site, site.stranger, 1, now)
    taken = [Run.claim_next("cpu", "worker", now) for _ in range(6)]
    running = [run for run in taken if run is not None]
    assert Counter(run.submission.owner.username for run in running) == {"owner": limit, "stranger": 1}
    mine = next(run for run in running if run.submission.owner == site.owner)
    assert mine.transition(RunState.FAILED, "Over.", now=now)
    assert Run.claim_next("cpu", "worker", now) is not None
    assert Run.claim_next("cpu", "worker", now) is None


def test_zero_allows_any_number_under_way(site: Site, now: datetime, settings: Settings) -> None:
    settings.RUNS_PER_USER_MAX = 0
    queue(site, site.owner, 5, now)
    assert all(Run.claim_next("cpu", "worker", now) for _ in range(5))


def test_an_organisers_baselines_are_not_limited(site: Site, now: datetime, settings: Settings) -> None:
    settings.RUNS_PER_USER_MAX = 1
    for run in queue(site, site.staff, 3, now):
        run.submission.is_baseline = True
        run.submission.save()
    assert all(Run.claim_next("cpu", "worker", now) for _ in range(3))


def test_the_next_run_is_found_without_looking_at_the_others(site: Site, now: datetime) -> None:
    queue(site, site.owner, 3, now)
    plan = Run.objects.in_turn("cpu").explain()
    assert "run_in_turn" in plan, plan
