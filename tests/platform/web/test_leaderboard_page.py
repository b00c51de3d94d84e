"""The board as a page, as a plot and as CSV."""

import csv
import io
import re
from datetime import timedelta

import pytest
import web_rows
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from web_rows import Site

from tiltyard.accounts.models import User
from tiltyard.leaderboards.refresh import refresh
from tiltyard.submissions.models import TaskResult
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

    rows = re.findall(r"<tr[ >].*?</tr>", page.split("<tbody")[1], flags=re.DOTALL)
    assert ["steady" in rows[0], "memo" in rows[1], "base" in rows[2]] == [True, True, True]
    assert "69.0" in rows[0]
    assert "66.6 – 71.4" in rows[0]
    assert "+61.0" in rows[1]
    assert "Baseline" in rows[2]


def test_only_the_gap_beyond_the_baselines_is_flagged_and_says_by_how_much(client: Client, ranked: Site) -> None:
    assert "chip bad" not in client.get(board(ranked)).content.decode()  # not computed yet
    refresh(ranked.track, timezone.now())

    table = client.get(board(ranked)).content.decode().split("<table")[1].split("</table>")[0]

    assert table.count("Flagged</span>") == 1
    assert table.index(">memo<") < table.index("Flagged</span>") < table.index(">base<")
    assert re.search(r"loses \d\d\.\d points more than base", table)


def test_groups_possible_ranks_and_what_the_board_can_tell(client: Client, ranked: Site) -> None:
    same = web_rows.make_run(ranked, "steady", owner=participant("another"), state=RunState.SCORED)
    web_rows.score(same, 0.70, 0.68)
    assert "are being computed" in client.get(board(ranked)).content.decode()
    refresh(ranked.track, timezone.now())

    page = client.get(board(ranked)).content.decode()

    assert "are being computed" not in page
    assert page.count('<tbody class="tie-group">') == 3
    assert "2 entries that cannot be told apart from steady" in page
    assert page.count("1–2</small>") == 2
    assert page.count("sure</small>") == 1  # memo; the baseline has no rank
    assert re.search(r'<strong class="num">\d+\.\d<small> points', page)
    assert "Told from five entries on" in page


def test_win_rates_and_gaps_are_a_second_view(client: Client, ranked: Site) -> None:
    refresh(ranked.track, timezone.now())

    page = client.get(board(ranked) + "?view=duels").content.decode()

    assert "Win rate</th>" in page
    assert "over base</small>" in page
    assert client.get(board(ranked) + "?view=others").status_code == 404


def test_an_entry_without_statistics_is_not_compared(client: Client, ranked: Site) -> None:
    older = web_rows.make_run(ranked, "older", owner=participant("another"), state=RunState.SCORED)
    web_rows.score(older, 0.5, 0.5)
    TaskResult.objects.filter(suite_result__run=older).update(item_scores=[])  # as before they were kept
    refresh(ranked.track, timezone.now())

    assert "Not compared" in client.get(board(ranked)).content.decode()
    rows = re.findall(r"<tr[ >].*?</tr>", client.get(board(ranked) + "?view=duels").content.decode(), flags=re.DOTALL)
    (row,) = [row for row in rows if ">older<" in row]
    assert '<td data-label="Win rate" class="right">–</td>' in row


def test_an_example_of_the_organisers_is_no_baseline(client: Client, ranked: Site) -> None:
    ranked.competition.reference_baselines = ["base"]
    ranked.competition.save()
    shown = web_rows.make_run(ranked, "shown-off", owner=ranked.staff, is_baseline=True, state=RunState.SCORED)
    web_rows.score(shown, 0.9, 0.2)
    refresh(ranked.track, timezone.now())

    rows = re.findall(r"<tr[ >].*?</tr>", client.get(board(ranked)).content.decode(), flags=re.DOTALL)
    (row,) = [row for row in rows if "shown-off" in row]

    assert "Example</span>" in row
    assert "Flagged</span>" in row


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
    assert (rows[1]["group"], rows[1]["flagged"]) == ("", "")
    refresh(ranked.track, timezone.now())
    response = client.get(ranked.competition.get_absolute_url() + "leaderboard.csv")
    memo = list(csv.DictReader(io.StringIO(response.content.decode())))[1]
    assert (memo["rank_low"], memo["rank_high"], memo["group"], memo["flagged"]) == ("2", "2", "2", "yes")
    assert (memo["excess_over"], 0 < float(memo["win_rate"]) < 1) == ("base", True)


def test_a_track_that_does_not_exist_is_not_found(client: Client, ranked: Site) -> None:
    assert client.get(board(ranked) + "?track=cpu").status_code == 200
    assert client.get(board(ranked) + "?track=none").status_code == 404


def test_more_entries_do_not_mean_more_queries(
    client: Client, ranked: Site, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    refresh(ranked.track, timezone.now())
    with django_assert_num_queries(8, exact=False) as first:
        client.get(board(ranked))
    for number in range(12):
        run = web_rows.make_run(ranked, f"more-{number}", owner=participant(f"p{number}"), state=RunState.SCORED)
        web_rows.score(run, 0.4 + number / 100, 0.4)
    refresh(ranked.track, timezone.now() + timedelta(minutes=1))
    with django_assert_num_queries(len(first)):
        client.get(board(ranked))


def test_of_many_entries_the_visitors_own_is_named_on_the_plot_for_them_alone(client: Client, ranked: Site) -> None:
    people = [participant(f"p{number}") for number in range(30)]
    for number, person in enumerate(people):
        run = web_rows.make_run(ranked, f"more-{number}", owner=person, state=RunState.SCORED)
        web_rows.score(run, 0.6 - number / 100, 0.5 - number / 100)
    own = Client()
    own.force_login(people[25])
    label = ">more-25</text>"
    for _ in range(2):  # the plot that is kept is drawn without anybody's own point
        assert own.get(board(ranked)).content.decode().count(label) == 1
        page = client.get(board(ranked)).content.decode()
        assert label not in page
        assert "<!-- own -->" not in page
