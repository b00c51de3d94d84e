"""Overview, tasks, rules, dates, further pages, and the participant's own submissions."""

import pytest
import web_rows
from django.test import Client
from web_rows import Site

from tiltyard.competitions.models import Page
from tiltyard.submissions.states import RunState

TABS = ["", "tasks/", "rules/", "dates/", "leaderboard/"]


def address(site: Site, rest: str = "") -> str:
    return site.competition.get_absolute_url() + rest


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_is_there_for_everybody(client: Client, site: Site, tab: str) -> None:
    response = client.get(address(site, tab))

    assert response.status_code == 200
    assert 'aria-current="page"' in response.content.decode()


@pytest.mark.parametrize("tab", [*TABS, "leaderboard.csv"])
def test_a_competition_that_is_not_public_does_not_exist_for_strangers(
    stranger: Client, organiser: Client, site: Site, tab: str
) -> None:
    site.competition.is_public = False
    site.competition.save()

    assert stranger.get(address(site, tab)).status_code == 404
    assert organiser.get(address(site, tab)).status_code == 200


def test_the_overview_is_rendered_from_markdown(client: Client, site: Site) -> None:
    page = client.get(address(site)).content.decode()

    assert "<strong>very small</strong>" in page
    assert "<table>" in page


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[click](javascript:alert(1))",
        "![pixel](https://tracker.example/p.png)",
        "<style>body{display:none}</style>",
    ],
)
def test_markdown_cannot_run_or_load_anything(client: Client, site: Site, hostile: str) -> None:
    Page.objects.filter(slug="overview").update(body=f"before\n\n{hostile}\n\nafter")

    article = client.get(address(site)).content.decode().split("<article")[1].split("</article>")[0]

    assert "before" in article
    assert "after" in article
    assert "<script" not in article
    assert "<style" not in article
    assert "<img" not in article
    assert 'href="javascript' not in article


def test_a_pages_own_title_is_not_shown_twice_and_leaves_one_first_heading(client: Client, site: Site) -> None:
    Page.objects.filter(slug="overview").update(body="# The title\n\ntext\n\n# Another\n")

    page = client.get(address(site)).content.decode()

    assert "The title" not in page
    assert "<h2>Another</h2>" in page
    assert page.count("<h1") == 1


def test_a_further_page_has_a_tab_and_an_address(client: Client, site: Site) -> None:
    Page.objects.create(competition=site.competition, slug="data", title="The data", body="Some *data*.", order=2)

    assert "The data" in client.get(address(site)).content.decode()
    assert "<em>data</em>" in client.get(address(site, "pages/data/")).content.decode()
    assert client.get(address(site, "pages/none/")).status_code == 404


def test_tasks_stand_side_by_side_with_their_numbers_of_questions(client: Client, site: Site) -> None:
    page = client.get(address(site, "tasks/")).content.decode()

    assert "Riddles" in page  # the hidden suite's own task
    assert "240" in page  # 4 open tasks of 60
    assert "270" in page  # 90 + 3 × 60 hidden
    assert page.count("50.0 %") == 2  # equal weights in the ranking score


def test_a_question_of_every_open_task_is_shown_and_none_of_a_hidden_one(client: Client, site: Site) -> None:
    page = client.get(address(site, "tasks/")).content.decode()

    assert page.count("Question of open task") == 4
    assert "Question of hidden task" not in page


def test_hashes_of_questions_and_secret_are_public_before_the_reveal(client: Client, site: Site) -> None:
    hidden = next(suite for suite in site.suites if suite.is_hidden)
    hidden.directory.mkdir(parents=True, exist_ok=True)
    (hidden.directory / "suite.yaml").write_text(f"commitment: sha256:{'5' * 64}\n")

    page = client.get(address(site, "tasks/")).content.decode()

    assert all(f"sha256:{suite.sha256}" in page for suite in site.suites)
    assert page.count(f"secret <code>sha256:{'5' * 64}</code>") == 1


def test_a_suite_whose_files_are_missing_leaves_the_page_standing(client: Client, site: Site) -> None:
    for file in (site.suites[0].directory / "data").iterdir():
        file.unlink()

    assert client.get(address(site, "tasks/")).status_code == 200


def test_a_participant_sees_their_own_submissions_only(owner: Client, stranger: Client, site: Site) -> None:
    web_rows.make_run(site, "mine-alone", state=RunState.EVALUATING)

    assert "mine-alone" in owner.get(address(site, "submissions/")).content.decode()
    assert "mine-alone" not in stranger.get(address(site, "submissions/")).content.decode()
    assert "mine-alone" in owner.get("/account/submissions/").content.decode()
    assert "mine-alone" not in stranger.get("/account/submissions/").content.decode()


def test_a_passer_by_is_asked_to_sign_in(client: Client, site: Site) -> None:
    for path in (address(site, "submissions/"), address(site, "submit/"), "/account/submissions/", "/account/tokens/"):
        response = client.get(path)
        assert response.status_code == 302
        assert response.headers["Location"].startswith("/accounts/login/")
