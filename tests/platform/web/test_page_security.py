"""What holds for every page: the policy in the header, nothing inline, an outline for assistive software."""

import itertools
import re
from html.parser import HTMLParser

import pytest
import web_rows
from django.test import Client
from web_rows import Site

from tiltyard.submissions.states import RunState


class Outline(HTMLParser):
    """Collects what the rules below are about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.labels: set[str] = set()
        self.unlabelled: list[str] = []
        self._in_label = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or re.fullmatch("on[a-z]+", name)]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "label":
            self._in_label += 1
            self.labels.add(str(given.get("for")))
        needs_label = tag in {"select", "textarea"} or (
            tag == "input" and given.get("type") not in {"hidden", "submit"}
        )
        if needs_label and not self._in_label and "aria-label" not in given:
            self.unlabelled.append(str(given.get("id")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "label":
            self._in_label -= 1


@pytest.fixture
def pages(site: Site) -> list[str]:
    scored = web_rows.score(web_rows.make_run(site, "racer", state=RunState.SCORED), 0.9, 0.4)
    running = web_rows.make_run(site, "runner", state=RunState.EVALUATING)
    failed = web_rows.make_run(site, "faller", state=RunState.FAILED)
    home = site.competition.get_absolute_url()
    tabs = [home + tab for tab in ("", "tasks/", "rules/", "dates/", "leaderboard/", "submissions/", "submit/")]
    runs = [run.get_absolute_url() for run in (scored, running, failed)]
    samples = scored.get_absolute_url() + "samples/"
    account = ["/account/submissions/", "/account/tokens/", "/accounts/password/change/"]
    return ["/", *tabs, *runs, samples, runs[0] + "logs/", *account, "/no-such-page/"]


def test_no_page_has_anything_inline_and_all_carry_the_policy(owner: Client, pages: list[str]) -> None:
    for path in pages:
        response = owner.get(path)
        assert Outline(response.content.decode()).inline == [], path
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self';"), path


def test_headings_begin_with_one_h1_and_skip_no_level(owner: Client, pages: list[str]) -> None:
    for path in pages:
        headings = Outline(owner.get(path).content.decode()).headings
        assert headings[0] == 1, path
        assert headings.count(1) == 1, path
        assert all(after - before <= 1 for before, after in itertools.pairwise(headings)), (path, headings)


def test_every_control_has_a_label_and_no_id_is_there_twice(owner: Client, pages: list[str]) -> None:
    for path in pages:
        outline = Outline(owner.get(path).content.decode())
        assert [name for name in outline.unlabelled if name not in outline.labels] == [], path
        assert len(outline.ids) == len(set(outline.ids)), path


def test_nothing_comes_from_another_host(owner: Client, pages: list[str]) -> None:
    for path in pages:
        assert not re.search(r'(src|href)="(https?:)?//', owner.get(path).content.decode()), path


def test_a_missing_page_says_so_in_the_sites_frame(client: Client, site: Site) -> None:
    response = client.get("/no-such-page/")

    assert response.status_code == 404
    assert "Page not found" in response.content.decode()
    assert 'class="site-header"' in response.content.decode()


@pytest.mark.django_db
def test_a_fault_of_ours_has_a_page_that_needs_no_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("tiltyard.web.views.home._card", broken)
    monkeypatch.setattr("tiltyard.web.views.home.is_staff", broken)
    client.raise_request_exception = False

    response = client.get("/")

    assert response.status_code == 500
    assert "Something broke on our side" in response.content.decode()
    assert "broken on purpose" not in response.content.decode()
