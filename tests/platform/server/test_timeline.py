"""The stages that a run's page shows, from its events."""

from datetime import datetime, timedelta

from web_rows import Site, make_run

from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState
from tiltyard.web.timeline import Status, elapsed_s, stages


def claimed(site: Site, now: datetime) -> Run:
    run = Run.claim(make_run(site, "one").pk, "worker", now)
    assert run is not None
    return run


def test_stages_last_until_the_next_begins(site: Site, now: datetime) -> None:
    run = claimed(site, now)
    assert run.transition(RunState.BUILDING, "Builds.", now=now + timedelta(seconds=7))
    shown = stages(run, list(run.events.all()), now + timedelta(seconds=10))
    assert [(stage.status, stage.duration_s) for stage in shown[:4]] == [
        (Status.DONE, 240.0),  # it was queued four minutes before
        (Status.DONE, 7.0),
        (Status.NOW, 3.0),
        (Status.TODO, None),
    ]


def test_an_attempt_that_came_to_nothing_is_not_shown(site: Site, now: datetime) -> None:
    run = claimed(site, now)
    assert run.transition(RunState.BUILDING, "Builds.", now=now)
    assert run.transition(RunState.QUEUED, "Again.", now=now + timedelta(seconds=60))
    shown = stages(run, list(run.events.all()), now + timedelta(seconds=65))
    assert [(stage.status, stage.duration_s) for stage in shown[:3]] == [
        (Status.NOW, 5.0),
        (Status.TODO, None),
        (Status.TODO, None),
    ]
    assert elapsed_s(run, now) == 240.0  # since it was handed in, all the same
