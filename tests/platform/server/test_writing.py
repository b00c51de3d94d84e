"""An attempt's last words reach the database although it is away for a moment, and only once."""

from datetime import datetime

import pytest
from django.db import OperationalError
from pytest_django.fixtures import Settings
from web_rows import Site, make_run

from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState
from tiltyard.worker import writing
from tiltyard.worker.writing import persist

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PAUSE_S", 0.0)


@pytest.fixture
def run(transactional_db: None, site: Site, now: datetime) -> Run:
    claimed = Run.claim(make_run(site, "one").pk, "worker", now)
    assert claimed is not None
    return claimed


def test_a_database_that_is_away_is_asked_again(run: Run) -> None:
    away = [OperationalError("the connection is lost"), OperationalError("it is starting up")]

    def write() -> bool:
        if away:
            raise away.pop()
        return run.transition(RunState.BUILDING, "Builds.")

    assert persist(run, RunState.BUILDING, write)
    assert Run.objects.get(pk=run.pk).state == RunState.BUILDING
    assert run.events.filter(state=RunState.BUILDING).count() == 1


def test_a_commit_whose_answer_was_lost_is_not_repeated(run: Run) -> None:
    calls = []

    def write() -> bool:
        calls.append(run.transition(RunState.BUILDING, "Builds."))
        raise OperationalError("the connection is lost")

    assert persist(run, RunState.BUILDING, write)
    assert calls == [True]
    assert run.events.filter(state=RunState.BUILDING).count() == 1


def test_what_was_undone_is_done_again(run: Run) -> None:
    tries = []

    def write() -> bool:
        tries.append(run.state)
        if len(tries) == 1:
            run.state = RunState.BUILDING  # as a transaction leaves it that was undone at its commit
            raise OperationalError("the connection is lost")
        return run.transition(RunState.BUILDING, "Builds.")

    assert persist(run, RunState.BUILDING, write)
    assert tries == [RunState.PREPARING, RunState.PREPARING]


def test_a_run_that_was_taken_away_in_the_meantime_is_left_alone(run: Run) -> None:
    away = [OperationalError("the connection is lost")]

    def write() -> bool:
        if away:
            Run.objects.get(pk=run.pk).transition(RunState.QUEUED, "Taken back.")
            raise away.pop()
        return run.transition(RunState.BUILDING, "Builds.")

    assert not persist(run, RunState.BUILDING, write)
    assert Run.objects.get(pk=run.pk).state == RunState.QUEUED


def test_it_gives_up_with_its_lease(run: Run, settings: Settings) -> None:
    settings.RUN_LEASE_S = 0

    def write() -> bool:
        raise OperationalError("the connection is lost")

    with pytest.raises(OperationalError):
        persist(run, RunState.BUILDING, write)
