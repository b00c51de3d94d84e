"""What somebody tries who wants more than a visitor gets: each of these once was somebody's way in, somewhere."""

import csv
import io
import re
from datetime import timedelta

import pytest
import web_rows
from django.test import Client
from django.utils import timezone
from web_rows import Site

from tiltyard.accounts.models import ApiToken, User
from tiltyard.leaderboards.refresh import refresh
from tiltyard.submissions.models import RunEvent, Sample, Submission
from tiltyard.submissions.states import FailureReason, RunState

PASSWORD = "correct horse battery"
EVIL = "evil.example"
MANIFEST = ("name", "base_model", "training_data", "licence", "adapter", "description")
SCRIPT = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"


def sign_in(client: Client, next_page: str = "") -> str:
    form = {"login": "owner", "password": PASSWORD} | ({"next": next_page} if next_page else {})
    response = client.post("/accounts/login/", form)
    assert response.status_code == 302
    return str(response.headers["Location"])


# --- redirects and host names ---


@pytest.mark.parametrize(
    "target",
    [
        f"https://{EVIL}/",
        f"//{EVIL}/",
        f"/\\{EVIL}/",
        f"\\\\{EVIL}",
        f"https:{EVIL}",
        "javascript:alert(1)",
        f"/%09/{EVIL}",
    ],
)
def test_a_sign_in_leads_to_no_other_site(site: Site, target: str) -> None:
    location = sign_in(Client(), target)
    assert location.startswith("/")
    assert not re.match(r"/[\\/\t]", location)
    page = Client().get("/accounts/login/", {"next": target}).content.decode()
    assert f'href="{target}' not in page


@pytest.mark.parametrize("host", [EVIL, f"testserver@{EVIL}", f"testserver.{EVIL}", f"{EVIL}:80"])
def test_another_host_name_is_refused(site: Site, host: str) -> None:
    assert Client(headers={"Host": host}).get("/").status_code == 400
    assert EVIL not in Client(headers={"X-Forwarded-Host": host}).get("/accounts/password/reset/").content.decode()


def test_links_in_mail_do_not_follow_a_forwarded_host(site: Site, mailoutbox: list[object]) -> None:
    Client(headers={"X-Forwarded-Host": EVIL}).post("/accounts/password/reset/", {"email": site.owner.email})
    (mail,) = mailoutbox
    assert "/accounts/password/reset/key/" in mail.body  # type: ignore[attr-defined]
    assert EVIL not in mail.body  # type: ignore[attr-defined]


# --- script in what people write ---


@pytest.fixture
def scripted(site: Site) -> Site:
    """Markup in every text that a participant or a submission chooses."""
    run = web_rows.score(web_rows.make_run(site, SCRIPT[:80], state=RunState.SCORED), 0.7, 0.6)
    run.build_log = run.server_log = SCRIPT
    run.save()
    failed = web_rows.fail(web_rows.make_run(site, SCRIPT[:80], state=RunState.FAILED), FailureReason.CRASHED, SCRIPT)
    for one in (run, failed):
        Submission.objects.filter(pk=one.submission_id).update(
            original_filename=SCRIPT,
            manifest=dict.fromkeys(
                ("name", "base_model", "training_data", "licence", "adapter", "description"), SCRIPT
            ),
        )
        RunEvent.objects.create(run=one, attempt=1, state=one.state, message=SCRIPT)
    Sample.objects.update(prompt=SCRIPT, answer=SCRIPT, expected=SCRIPT, failure=SCRIPT[:40])
    refresh(site.track, timezone.now())
    site.runs = {"scored": run, "failed": failed}
    return site


def test_it_stays_text_on_every_page_and_in_the_admin(scripted: Site, owner: Client, organiser: Client) -> None:
    home = scripted.competition.get_absolute_url()
    pages = [
        "/",
        "/account/submissions/",
        *[home + tab for tab in ("leaderboard/", "leaderboard/?q=script", "submissions/")],
    ]
    for run in scripted.runs.values():
        pages += [run.get_absolute_url() + part for part in ("", "live/", "results/", "logs/", "samples/")]
    admin = ["/admin/submissions/submission/", "/admin/submissions/run/"]
    admin += [f"/admin/submissions/run/{run.pk}/change/" for run in scripted.runs.values()]
    seen = 0
    for client, paths in ((owner, pages), (organiser, [*pages, *admin])):
        for path in paths:
            text = client.get(path).content.decode()
            assert "<script>alert" not in text, path
            assert "<img src=x" not in text, path
            assert not re.search(r"""\son\w+\s*=\s*["']?alert""", re.sub(r"&lt;.*?&gt;", "", text)), path
            assert ">49" not in text, path
            seen += "&lt;script&gt;alert" in text
    assert seen >= 12


def test_a_search_and_a_page_number_come_back_as_text(scripted: Site, owner: Client) -> None:
    board = scripted.competition.get_absolute_url() + "leaderboard/"
    samples = scripted.runs["scored"].get_absolute_url() + "samples/"
    for path in (board, samples):
        text = owner.get(path, {"q": SCRIPT, "page": SCRIPT}).content.decode()
        assert "<script>alert" not in text


def test_json_and_csv_are_not_taken_for_pages(scripted: Site) -> None:
    home = scripted.competition.get_absolute_url()
    for path, kind in (
        ("/api/v1/competitions/little-questions/leaderboard", "application/json"),
        (home + "leaderboard.csv", "text/csv"),
    ):
        response = Client().get(path)
        assert response.headers["Content-Type"].startswith(kind)
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1"])
def test_no_cell_of_the_csv_is_a_formula(site: Site, name: str) -> None:
    web_rows.score(web_rows.make_run(site, name, state=RunState.SCORED), 0.7, 0.6)
    text = Client().get(site.competition.get_absolute_url() + "leaderboard.csv").content.decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["name"].startswith("'")


# --- requests that say more than the form asks ---


def test_nobody_becomes_an_organiser_by_saying_so(site: Site, owner: Client) -> None:
    form = {"username": "climber", "email": "c@climb.example", "password1": PASSWORD, "password2": PASSWORD}
    more = {"is_staff": "1", "is_superuser": "on", "user_permissions": "1", "groups": "1"}
    assert Client().post("/accounts/signup/", form | more).status_code == 302
    climber = User.objects.get(username="climber")
    assert (climber.is_staff, climber.is_superuser, climber.user_permissions.count()) == (False, False, 0)
    owner.post("/account/tokens/", {"name": "t", "scope": "admin", "user": site.staff.pk, "digest": "0" * 64})
    owner.post("/account/tokens/", {"name": "t", "user": str(site.staff.pk), "digest": "0" * 64})
    assert [(token.user, token.scope) for token in ApiToken.objects.all()] == [(site.owner, "submit")]


def test_every_change_needs_its_csrf_token(site: Site) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(site.owner)
    run = web_rows.make_run(site, "under-way", state=RunState.EVALUATING)
    token = ApiToken.issue(site.owner, "t")[0]
    slug = site.competition.slug
    paths = ["/accounts/logout/", "/accounts/password/change/", "/accounts/email/", "/account/tokens/"]
    paths += [f"/account/tokens/{token.pk}/revoke/", f"/runs/{run.pk}/cancel/", f"/competitions/{slug}/submit/"]
    paths += [f"/api/v1/runs/{run.pk}/cancel", f"/api/v1/competitions/{slug}/submissions"]
    for path in paths:
        assert client.post(path, {"file": "x"}).status_code == 403, path
        foreign = {"Origin": f"https://{EVIL}", "Referer": f"https://{EVIL}/"}
        assert client.post(path, {"file": "x"}, headers=foreign).status_code == 403, path
    run.refresh_from_db()
    assert (run.cancel_requested_at, ApiToken.objects.count()) == (None, 1)


def test_a_look_changes_nothing(site: Site, owner: Client) -> None:
    """Pages that change something cannot be asked for by a link or an image."""
    run = web_rows.make_run(site, "under-way", state=RunState.EVALUATING)
    for path in (f"/runs/{run.pk}/cancel/", "/account/tokens/1/revoke/"):
        assert owner.get(path).status_code == 405
        assert owner.head(path).status_code == 405


# --- sessions ---


def test_a_session_that_somebody_else_began_is_not_taken_over(site: Site) -> None:
    planted = Client()
    planted.get("/accounts/login/")
    session = planted.session
    session["seen"] = "before"
    session.save()
    victim = Client()
    victim.cookies["sessionid"] = session.session_key or ""
    sign_in(victim)
    assert victim.cookies["sessionid"].value != session.session_key
    attacker = Client()
    attacker.cookies["sessionid"] = session.session_key or ""
    assert attacker.get("/account/tokens/").status_code == 302
    invented = Client()
    invented.cookies["sessionid"] = "a" * 32
    sign_in(invented)
    assert invented.cookies["sessionid"].value != "a" * 32


def test_a_new_password_ends_other_sessions_and_signing_out_ends_ones_own(site: Site) -> None:
    here, elsewhere = Client(), Client()
    sign_in(here)
    sign_in(elsewhere)
    change = {"oldpassword": PASSWORD, "password1": "another horse battery", "password2": "another horse battery"}
    assert here.post("/accounts/password/change/", change).status_code == 302
    assert elsewhere.get("/account/tokens/").status_code == 302
    key = here.cookies["sessionid"].value
    here.post("/accounts/logout/")
    stolen = Client()
    stolen.cookies["sessionid"] = key
    assert stolen.get("/account/tokens/").status_code == 302


# --- caches, and what is withheld ---


@pytest.fixture
def withheld(site: Site) -> Site:
    site.competition.feedback = {"mode": "none"}
    site.competition.save()
    web_rows.score(web_rows.make_run(site, "secretive", state=RunState.SCORED), 0.71, 0.4321)
    refresh(site.track, timezone.now())
    return site


def test_what_an_organiser_saw_is_not_served_to_others(withheld: Site, organiser: Client) -> None:
    home = withheld.competition.get_absolute_url()
    for path in (home + "leaderboard/", home + "leaderboard.csv", home + "leaderboard/?page=1"):
        seen = organiser.get(path)
        assert "43.2" in seen.content.decode() or "0.4321" in seen.content.decode(), path
        for headers in ({}, {"If-None-Match": seen.headers["ETag"]}):
            answer = Client().get(path, headers=headers)
            assert answer.status_code == 200, path
            assert "43.2" not in answer.content.decode(), path
            assert "0.432" not in answer.content.decode(), path
    answer = organiser.get("/api/v1/competitions/little-questions/leaderboard").content.decode()
    assert "0.432" not in answer
    assert "43.2" not in Client().get("/").content.decode()


def test_the_board_opens_by_itself_when_the_round_is_over(withheld: Site) -> None:
    board = withheld.competition.get_absolute_url() + "leaderboard/"
    before = Client().get(board)
    assert "43.2" not in before.content.decode()
    withheld.competition.phases.update(ends_at=timezone.now() - timedelta(seconds=1))
    after = Client().get(board, headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200
    assert "43.2" in after.content.decode()


def test_no_cache_on_the_way_may_keep_a_page(withheld: Site, owner: Client) -> None:
    run = web_rows.make_run(withheld, "mine", state=RunState.EVALUATING)
    home = withheld.competition.get_absolute_url()
    for path in (
        "/",
        home,
        home + "leaderboard/",
        home + "leaderboard.csv",
        run.get_absolute_url(),
        "/account/tokens/",
    ):
        response = owner.get(path)
        assert "private" in response.headers["Cache-Control"] or "no-store" in response.headers["Cache-Control"], path
        assert "public" not in response.headers["Cache-Control"], path
    assert "Cookie" in owner.get(home + "leaderboard/").headers["Vary"]


def test_a_board_that_is_the_same_is_not_sent_again(site: Site) -> None:
    web_rows.score(web_rows.make_run(site, "steady", state=RunState.SCORED), 0.7, 0.6)
    home = site.competition.get_absolute_url()
    for path in (home + "leaderboard/", home + "leaderboard.csv", "/api/v1/competitions/little-questions/leaderboard"):
        first = Client().get(path)
        again = Client().get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b""), path
    web_rows.score(web_rows.make_run(site, "better", owner=site.stranger, state=RunState.SCORED), 0.8, 0.7)
    assert Client().get(path, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200
