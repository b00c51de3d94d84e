"""The front page."""

import re

import pytest
import web_rows
from django.test import Client
from django.utils import timezone
from web_rows import Site

from tiltyard.leaderboards.refresh import refresh_all
from tiltyard.submissions.states import RunState


def test_it_shows_the_competition_with_its_phase_and_its_leader(client: Client, site: Site) -> None:
    web_rows.score(web_rows.make_run(site, "sharp", state=RunState.SCORED), 0.70, 0.60)
    refresh_all(timezone.now())

    page = client.get("/").content.decode()

    assert site.competition.title in page
    assert "Main phase" in page
    assert "sharp" in page
    assert "65.0" in page
    assert "1 entry on the board" in page


def test_organisers_entries_are_called_what_the_board_calls_them(client: Client, site: Site) -> None:
    site.competition.reference_baselines = ["plain"]
    site.competition.save()
    for name in ("plain", "memoriser"):
        run = web_rows.make_run(site, name, is_baseline=True, state=RunState.SCORED)
        web_rows.score(run, 0.70, 0.60)
    refresh_all(timezone.now())

    page = client.get("/").content.decode()

    assert re.search(r"plain\s*<span[^>]*>\(baseline\)", page)
    assert re.search(r"memoriser\s*<span[^>]*>\(example\)", page)


@pytest.mark.django_db
def test_it_says_so_when_there_is_no_competition(client: Client) -> None:
    response = client.get("/")

    assert response.status_code == 200
    assert "No competition yet" in response.content.decode()


def test_a_competition_that_is_not_public_is_for_organisers_alone(
    client: Client, organiser: Client, site: Site
) -> None:
    site.competition.is_public = False
    site.competition.save()

    assert site.competition.title not in client.get("/").content.decode()
    assert site.competition.title in organiser.get("/").content.decode()


def test_only_organisers_see_the_way_to_the_admin(owner: Client, organiser: Client) -> None:
    assert "/admin/" not in owner.get("/").content.decode()
    assert "/admin/" in organiser.get("/").content.decode()
