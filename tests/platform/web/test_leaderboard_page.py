"""The board as a page, as a plot and as CSV."""

import csv
import io
import re

import pytest
import web_rows
from django.test import Client
from pytest_django import DjangoAssertNumQueries
from web_rows import Site

from tiltyard.accounts.models import User
from tiltyard.submissions.states import RunState


def board(site: Site) -> str:
    return site.competition.get_absolute_url() + "leaderboard/"


def participant(name: str) -> User:
    return User.objects.create_user(name, f"{name}@board.example", "correct horse battery")


@pytest.fixture
def ranked(site: Site) -> Site:
    web_rows.score(web_rows.make_run(site, "steady", state=RunState.SCORED), 0.70, 0.68)
    web_rows.score(web_rows.make_run(site, "memo", owner=site.stranger, state=RunState.SCORED), 0.94, 0.33)
    baseline = web_rows.make_run(site, "base", owner=site.staff, is_baseline=True, state=RunState.SCORED)
    web_rows.score(baseline, 0.31, 0.29)
    return site


def test_it_ranks_and_shows_every_score_with_its_interval(client: Client, ranked: Site) -> None:
    page = client.get(board(ranked)).content.decode()

    rows = re.findall(r"<tr[ >].*?</tr>", page.split("<tbody>")[1], flags=re.DOTALL)
    assert ["steady" in rows[0], "memo" in rows[1], "base" in rows[2]] == [True, True, True]
    assert "69.0" in rows[0]
    assert "66.6 – 71.4" in rows[0]
    assert "+61.0" in rows[1]
    assert "Baseline" in rows[2]


def test_only_the_large_gap_is_flagged(client: Client, ranked: Site) -> None:
    table = client.get(board(ranked)).content.decode().split("<tbody>")[1].split("</tbody>")[0]

    assert table.count("Large gap") == 1
    assert table.index("memo") < table.index("Large gap") < table.index("base")


def test_the_plot_has_a_point_for_every_entry_and_the_diagonal(client: Client, ranked: Site) -> None:
    page = client.get(board(ranked)).content.decode()

    plot = page.split('<figure class="plot')[1].split("</figure>")[0]
    assert plot.count('class="dot"') == 3
    assert plot.count('class="whisker"') == 6
    assert 'class="diagonal"' in plot
    assert "memo: open 94, hidden 33" in plot


def test_unscored_runs_are_not_on_it(client: Client, site: Site) -> None:
    web_rows.make_run(site, "on-its-way", state=RunState.EVALUATING)

    page = client.get(board(site)).content.decode()

    assert "on-its-way" not in page
    assert "Nobody is on the board yet" in page


def test_a_name_cannot_bring_markup_into_table_or_plot(client: Client, site: Site) -> None:
    name = '"><script>alert(1)</script>'
    web_rows.score(web_rows.make_run(site, name, state=RunState.SCORED), 0.5, 0.5)

    page = client.get(board(site)).content.decode()

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_csv_holds_the_same_rows(client: Client, ranked: Site) -> None:
    response = client.get(ranked.competition.get_absolute_url() + "leaderboard.csv")

    rows = list(csv.DictReader(io.StringIO(response.content.decode())))
    assert response.headers["Content-Type"].startswith("text/csv")
    assert "attachment" in response.headers["Content-Disposition"]
    assert [row["name"] for row in rows] == ["steady", "memo", "base"]


def test_a_track_that_does_not_exist_is_not_found(client: Client, ranked: Site) -> None:
    assert client.get(board(ranked) + "?track=cpu").status_code == 200
    assert client.get(board(ranked) + "?track=none").status_code == 404


def test_more_entries_do_not_mean_more_queries(
    client: Client, ranked: Site, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    client.get(board(ranked))
    with django_assert_num_queries(6, exact=False) as first:
        client.get(board(ranked))
    for number in range(12):
        run = web_rows.make_run(ranked, f"more-{number}", owner=participant(f"p{number}"), state=RunState.SCORED)
        web_rows.score(run, 0.4 + number / 100, 0.4)
    with django_assert_num_queries(len(first)):
        client.get(board(ranked))
