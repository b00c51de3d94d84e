"""What an evaluation on a hidden suite does not tell, in words or by the moment of its end."""

import time
from datetime import datetime

import pytest
from web_rows import Site, make_run

from tiltyard.competitions.models import Suite
from tiltyard.evaluation import EvaluatorFault
from tiltyard.submissions.models import Run
from tiltyard.submissions.states import RunState
from tiltyard.worker import execution
from tiltyard.worker.fitness import Machine
from tiltyard.worker.withholding import untold
from tiltyard_sandbox.verdicts import InfraFault

QUESTION = "What is nineteen times four?"


def suite_of(site: Site, visibility: str) -> Suite:
    return site.competition.suites.get(visibility=visibility)


def test_of_a_hidden_suite_the_evaluators_words_are_withheld(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InfraFault) as caught, untold(suite_of(site, "hidden")):
        raise EvaluatorFault(f"The evaluator ended with status 3: it choked on {QUESTION}", f"Traceback: {QUESTION}")
    assert caught.value.message.startswith("The evaluator ended with status 3. The rest is withheld")
    assert QUESTION not in caught.value.message + caplog.text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__  # so that no traceback quotes it


def test_of_an_open_suite_they_are_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EvaluatorFault, match="nineteen"), untold(suite_of(site, "open")):
        raise EvaluatorFault(f"The evaluator ended with status 3: it choked on {QUESTION}", f"Traceback: {QUESTION}")
    assert QUESTION in caplog.text


@pytest.mark.parametrize("time_s", [0.02, 0.3])
def test_the_end_on_a_hidden_suite_is_told_at_a_whole_second(site: Site, time_s: float) -> None:
    suite = suite_of(site, "hidden")
    began = time.monotonic()
    with untold(suite):
        time.sleep(time_s)
    assert 1.0 <= time.monotonic() - began < 1.9


def test_a_failure_there_too(site: Site) -> None:
    suite = suite_of(site, "hidden")
    began = time.monotonic()
    with pytest.raises(InfraFault), untold(suite):
        raise InfraFault("The engine failed.")
    assert time.monotonic() - began >= 1.0


def test_an_open_suite_ends_at_once(site: Site) -> None:
    suite = suite_of(site, "open")
    began = time.monotonic()
    with untold(suite):
        pass
    assert time.monotonic() - began < 0.5


@pytest.mark.django_db(transaction=True)
def test_an_unexpected_error_is_logged_without_what_it_says(
    site: Site, now: datetime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def perform(_attempt: object) -> None:
        raise KeyError(QUESTION)

    monkeypatch.setattr(execution._Attempt, "perform", perform)
    waiting = make_run(site, "entry", state=RunState.QUEUED)
    run = Run.claim(waiting.pk, "worker", now)
    assert run is not None
    execution._attempt(run, Machine(None, "none"), None)  # type: ignore[arg-type] - no engine is asked
    assert "failed unexpectedly: KeyError" in caplog.text
    assert "test_withholding.py" in caplog.text
    assert QUESTION not in caplog.text
    run.refresh_from_db()
    assert run.state == RunState.QUEUED
