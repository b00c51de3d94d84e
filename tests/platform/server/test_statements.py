"""Statements that are written once give what their querysets give."""

import threading
import uuid

import pytest
import web_rows
from django.db import models
from django.db.models import Exists, OuterRef
from django.db.models.fields.json import KeyTransform
from pytest_django import DjangoAssertNumQueries
from web_rows import Site

from tiltyard.competitions.models import Competition
from tiltyard.competitions.reading import tracks_of
from tiltyard.statements import Given, Statement
from tiltyard.submissions.models import Run, SuiteResult, TaskResult
from tiltyard.submissions.states import RunState


def runs(key: object) -> models.QuerySet[Run]:
    related = ("submission__competition", "submission__track", "submission__owner", "ladder", "resources")
    return Run.objects.select_related(*related).defer("server_log").filter(pk=key)


RUN = Statement(lambda: runs(Given("run", models.UUIDField())))


@pytest.fixture
def run(site: Site) -> Run:
    return web_rows.score(web_rows.make_run(site, "racer", state=RunState.SCORED), 0.7, 0.6)


def values_of(found: models.Model) -> dict[str, object]:
    return {name: value for name, value in vars(found).items() if name != "_state"}


def test_it_reads_the_same_model_with_everything_related(
    run: Run, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    expected = runs(run.pk).get()
    with django_assert_num_queries(1):
        found = RUN.first(run=run.pk)
        assert found is not None
        assert values_of(found) == values_of(expected)
        assert values_of(found.submission) == values_of(expected.submission)
        assert values_of(found.submission.competition) == values_of(expected.submission.competition)
        assert values_of(found.submission.owner) == values_of(expected.submission.owner)
        assert not hasattr(found, "ladder")
    assert found.get_deferred_fields() == {"server_log"}
    assert not found._state.adding


def test_annotations_and_order_are_the_queryset_s(run: Run) -> None:
    def results(key: object) -> models.QuerySet[SuiteResult]:
        has_tasks = Exists(TaskResult.objects.filter(suite_result=OuterRef("pk")))
        chosen = SuiteResult.objects.filter(run=key).select_related("suite").defer("result")
        return chosen.annotate(schema=KeyTransform("schema", "result"), has_tasks=has_tasks)

    found = Statement(lambda: results(Given("run", models.UUIDField()))).ask(run=run.pk)

    assert len(found) == 2
    assert [values_of(one) for one in found] == [values_of(one) for one in results(run.pk)]
    assert [one.suite for one in found] == [one.suite for one in results(run.pk)]


def test_it_is_asked_anew_each_time(run: Run, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    assert RUN.first(run=uuid.uuid4()) is None
    assert RUN.ask(run=str(run.pk)) == [run]
    Run.objects.filter(pk=run.pk).update(attempt=7)
    with django_assert_num_queries(1):
        found = RUN.first(run=run.pk)
    assert found is not None
    assert found.attempt == 7


def test_it_is_written_once_for_a_connection(site: Site) -> None:
    written = []

    def write() -> models.QuerySet[Competition]:
        written.append(threading.current_thread())
        return Competition.objects.filter(slug=Given("slug", models.CharField()), is_public=True)

    statement = Statement(write)
    assert statement.ask(slug=site.competition.slug) == [site.competition]
    assert statement.ask(slug="another") == []
    assert len(written) == 1


def test_a_value_that_is_not_given_is_a_mistake(db: None) -> None:
    with pytest.raises(KeyError):
        RUN.ask()


def test_a_value_is_never_part_of_the_sql(site: Site) -> None:
    statement = Statement(lambda: Competition.objects.filter(slug=Given("slug", models.CharField())))
    assert statement.ask(slug="' OR '1'='1") == []


def test_tracks_know_their_competition(site: Site, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(1):
        assert [track.competition for track in tracks_of(site.competition)] == [site.competition]
